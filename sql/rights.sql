-- Returns what the session's role may do, and whether the server takes changes.
--
-- Returns one row: a JSON object with the name of the database and of the role, and one boolean for each right.
select jsonb_build_object(
    'database', current_database(),
    'role', current_user,
    'is_standby', pg_is_in_recovery(),
    'reads_jobs', has_table_privilege('reveille.jobs', 'select'),
    'changes_jobs',
        has_table_privilege('reveille.jobs', 'select')
        and has_table_privilege('reveille.jobs', 'update')
        and has_table_privilege('reveille.jobs', 'delete')
        and has_table_privilege('reveille.dead_jobs', 'delete')
        and has_table_privilege('reveille.finished_jobs', 'insert')
        and has_function_privilege('reveille.cancel(bigint)', 'execute')
        and has_function_privilege('reveille.retry(bigint)', 'execute'),
    'enqueues', has_table_privilege('reveille.jobs', 'insert'),
    'changes_queues',
        has_table_privilege('reveille.queues', 'update') and has_table_privilege('reveille.queues', 'insert'),
    'changes_schedules',
        has_table_privilege('reveille.schedules', 'update') and has_table_privilege('reveille.schedules', 'delete'),
    'stops_workers', has_function_privilege('reveille.stop_worker(bigint)', 'execute')
) as record
