-- The last part of a statement over live jobs: cancels the jobs of the slice that pass the filter, as reveille.cancel
-- does. See sql/slice_of_jobs.sql.
--
-- Returns one row:
--   done         the number of jobs that were cancelled, or whose handlers were asked to stop
--   requested    the number of running jobs among these: their handlers were asked to stop
--   left_over    always 0
--   passed_over  the ids of the jobs that were not touched, since another session has locked or changed them
--   the columns of reached
--
-- A job is chosen only if its row still has the version that passed the filter. The conditions on reserved_by fit no
-- index, so the planner finds the jobs by their ids.
, locked as materialized (
    select id, xmin as version from reveille.jobs
    where id = any (array(select id from passing))
    for update skip locked
), chosen as materialized (
    select locked.id from locked join passing using (id, version)
), requested as (
    update reveille.jobs
    set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
    where id = any (array(select id from chosen)) and reserved_by is not null
    returning id
), ended as (
    delete from reveille.jobs
    where id = any (array(select id from chosen)) and reserved_by is null
    returning *
), finished as (
    insert into reveille.finished_jobs (
        day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
        key, tags, metadata, errors, progress, parent_id, schedule_id, outcome
    )
    select
        extract(epoch from now())::bigint / 86400 % 32, id, queue, kind, payload, priority,
        attempts, failures, max_attempts, available_at, created_at,
        key, tags, metadata, errors, progress, parent_id, schedule_id, 'cancelled'
    from ended
    where not exists (select from reveille.queues where name = ended.queue and retention = interval '0')
), ends as (
    insert into reveille.ends (id, outcome, errors)
    select id, 'cancelled', errors from ended
    where awaited and exists (select from reveille.queues where name = ended.queue and retention = interval '0')
), linked_ends as (
    insert into reveille.linked_ends (job, outcome, workflow)
    select
        id, 'cancelled',
        (select workflow_jobs.workflow from reveille.workflow_jobs where workflow_jobs.job = ended.id)
    from ended
    where linked
    on conflict (job) do update set outcome = excluded.outcome, result = null, ended_at = excluded.ended_at
), told as materialized (
    -- The worker confirms the notification in the table. If no notification comes, the worker's next heartbeat finds
    -- the request.
    select pg_notify('reveille.cancel', id::text) from requested
    where (select pg_notification_queue_usage() < 0.9)
    union all
    select pg_notify('reveille.finished', id || ' cancelled') from ended
    where awaited and (select pg_notification_queue_usage() < 0.9)
    union all
    -- In an ordered queue, the next job with the same key may start now.
    select reveille.ring(array(
        select distinct ended.queue from ended
        join reveille.queues on queues.name = ended.queue and queues.limited = 'key'
    ))
    union all
    select reveille.tell_of_ends() where exists (select from ended where linked)
)
select
    (select count(*) from requested) + (select count(*) from ended) as done,
    (select count(*) from requested) as requested,
    0::bigint as left_over,
    array(select id from passing where id not in (select id from chosen)) as passed_over,
    reached.*
from reached
where (select count(*) from told) > 0
