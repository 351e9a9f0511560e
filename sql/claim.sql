-- Reserve due jobs of one queue for a worker, the most urgent level first and the longest due first within it.
--
--   $1 text           queue
--   $2 bigint         how many at most
--   $3 bigint         worker; one without a row in reveille.workers gets nothing
--   $4 timestamptz[]  per level, from which place in the order of claims to look: due time
--   $5 bigint[]       and id. A sweep starts at -infinity.
--
-- One index scan a level, in index order, so that delayed rows and other levels cost nothing, and neither do the dead rows
-- below the place. MATERIALIZED keeps the planner from reserving more rows than the limit.
--
-- A row a job; `place` is where it is from now on, for sql/settle_alike.sql. Why there may be no row, sql/next_due.sql says; a job that
-- has just become due waits for this statement, so it does no more than it must. A queue that has limits gives nothing here:
-- sql/claim_limited.sql and sql/claim_by_key.sql are for these.
with due as materialized (
    select found.place
    from unnest('{0,1,2,3}'::smallint[], $4::timestamptz[], $5::bigint[]) as level (priority, available_at, id)
    cross join lateral (
        select jobs.ctid as place
        from reveille.jobs
        where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
            and (jobs.available_at, jobs.id) >= (level.available_at, level.id) and jobs.available_at <= now()
        order by jobs.available_at, jobs.id
        limit $2
        for update skip locked
    ) as found
    where exists (select from reveille.workers where workers.id = $3)
        and not exists (select from reveille.queues where queues.name = $1 and (queues.paused_at is not null or queues.limited is not null))
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
    jobs.cancel_requested_at is not null as cancel_requested, jobs.ctid as place
