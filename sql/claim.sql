-- Reserves due jobs of one queue for a worker: the most urgent level first, and within a level the job that has been
-- due longest.
--
--   $1 text           the queue's name
--   $2 bigint         the maximum number of jobs
--   $3 bigint         the worker's id; a worker without a row in reveille.workers gets no job
--   $4 timestamptz[]  the low-water mark of each level: due time; -infinity: no mark
--   $5 bigint[]       the low-water mark of each level: id
--
-- Returns one row per job. The column `place` is the tuple id of the job's row after this update, for
-- sql/settle_alike.sql; null for a linked job, which that statement does not settle.
--
-- Each level is one scan in the order of the index, from the mark up to the first delayed job. The scan does not read
-- delayed jobs, other levels, or the dead rows below the mark. Without MATERIALIZED, the planner may choose a plan that
-- runs the scan repeatedly and so reserves more rows than the limit.
--
-- This statement does no more than it must, because jobs that have just become due wait for it. If the statement
-- returns no row, sql/next_due.sql returns the reason. The statement returns no row for a queue with limits, or
-- with a paused kind or key: sql/claim_limited.sql, sql/claim_by_key.sql and sql/claim_paused.sql serve these queues.
with due as materialized (
    select found.place
    from unnest('{0,1,2,3}'::smallint[], $4::timestamptz[], $5::bigint[]) as level (priority, available_at, id)
    cross join lateral (
        select jobs.ctid as place
        from reveille.jobs
        where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
            and jobs.paused_by is null
            and (jobs.available_at, jobs.id) >= (level.available_at, level.id) and jobs.available_at <= now()
        order by jobs.available_at, jobs.id
        limit $2
        for update skip locked
    ) as found
    where exists (select from reveille.workers where workers.id = $3)
        and not exists (
            select from reveille.queues
            where queues.name = $1 and (queues.paused_at is not null or queues.limited is not null)
        )
        and not exists (select from reveille.pauses where coalesce(pauses.queue, '') = any (array[$1, '']))
    limit $2
)
update reveille.jobs
set reserved_at = now(),
    reserved_by = $3,
    attempts = jobs.attempts + 1,
    unique_key = case when jobs.unique_until = 'started' then null else jobs.unique_key end,
    unique_until = case when jobs.unique_until = 'started' then null else jobs.unique_until end
where jobs.ctid = any (array(select place from due))
returning
    jobs.id, jobs.kind, jobs.payload, jobs.priority, jobs.attempts, jobs.failures, jobs.max_attempts,
    jobs.reserved_at, jobs.available_at, jobs.created_at, jobs.key, jobs.tags, jobs.metadata,
    extract(epoch from jobs.timeout)::double precision as timeout_seconds,
    jobs.cancel_requested_at is not null as cancel_requested,
    case when not jobs.linked then jobs.ctid end as place
