-- Returns what the session's role may do, and whether the server takes changes.
--
-- Returns one row: a JSON object with the name of the database and of the role, and one boolean for each right. Changes
-- are recorded, so a role that may not record them has no right to change anything.
with role as (
    select
        has_table_privilege('reveille.jobs', 'select') as reads_jobs,
        has_table_privilege('reveille.actions', 'insert') and has_table_privilege('reveille.actions', 'update')
            as records
)
select jsonb_build_object(
    'database', current_database(),
    'role', current_user,
    'is_standby', pg_is_in_recovery(),
    'reads_jobs', reads_jobs,
    'changes_jobs',
        records and reads_jobs
        and has_table_privilege('reveille.jobs', 'update')
        and has_table_privilege('reveille.jobs', 'delete')
        and has_table_privilege('reveille.dead_jobs', 'delete')
        and has_table_privilege('reveille.finished_jobs', 'insert')
        and has_function_privilege('reveille.cancel(bigint)', 'execute')
        and has_function_privilege('reveille.retry(bigint, boolean)', 'execute'),
    'enqueues', records and has_table_privilege('reveille.jobs', 'insert'),
    'changes_queues',
        records
        and has_table_privilege('reveille.queues', 'update')
        and has_table_privilege('reveille.queues', 'insert'),
    'changes_schedules',
        records
        and has_table_privilege('reveille.schedules', 'update')
        and has_table_privilege('reveille.schedules', 'delete'),
    'stops_workers', records and has_function_privilege('reveille.stop_worker(bigint)', 'execute')
) as record
from role
