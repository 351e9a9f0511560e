-- Counts the ready, running, delayed and blocked jobs of a queue, and the queue's workers.
--
--   $1 text  the queue's name
--
-- Returns one row:
--   paused   true if the queue is paused
--   ready    the number of due jobs that wait, counted up to 10,000
--   running  the number of jobs that workers hold
--   delayed  the number of jobs that are not due yet, counted up to 10,000
--   blocked  the number of blocked jobs, counted up to 10,000
--   workers  the number of living workers of the queue that are not stopping
--
-- This is one statement, so that a job that starts meanwhile is not counted twice. The count goes level by level, in
-- the order of the claim index, so that the planner uses this index.
select
    exists (select from reveille.queues where name = $1 and paused_at is not null) as paused,
    (
        select count(*)
        from (
            select from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
            cross join lateral (
                select from reveille.jobs
                where queue = $1 and jobs.priority = level.priority and reserved_at is null and paused_by is null
                    and available_at <= now()
                order by available_at
                limit 10000
            ) as due
            limit 10000
        ) as ready
    ) as ready,
    (select count(*) from reveille.held_jobs() as held where held.queue = $1) as running,
    (
        select count(*)
        from (
            select from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
            cross join lateral (
                select from reveille.jobs
                where queue = $1 and jobs.priority = level.priority and reserved_at is null and paused_by is null
                    and available_at > now()
                order by available_at
                limit 10000
            ) as later
            limit 10000
        ) as delayed
    ) as delayed,
    (
        select count(*)
        from (select from reveille.blocked_jobs where queue = $1 order by queue, id limit 10000) as blocked
    ) as blocked,
    (
        select count(*)
        from reveille.workers
        where last_seen_at > clock_timestamp() - interval '30 seconds' and not stopping and stop_requested_at is null
            and $1 = any (queues)
    ) as workers
