-- Reserves due jobs as sql/claim.sql does, for a full queue from which several workers claim. The claim starts no lower
-- than the place that the other workers' claims have reached (the shared head). It then makes the place of its own last
-- job the shared head. This way, no claim has to read and skip the rows that other workers have reserved.
--
--   $1 text           the queue's name
--   $2 bigint         the maximum number of jobs
--   $3 bigint         the worker's id; a worker without a row in reveille.workers gets no job
--   $4 timestamptz[]  the low-water mark of each level: due time
--   $5 bigint[]       the low-water mark of each level: id
--
-- Returns the rows of sql/claim.sql.
with level as materialized (
    select
        own.priority,
        case when shared.id is null then own.available_at else shared.available_at end as available_at,
        coalesce(shared.id, own.id) as id
    from unnest('{0,1,2,3}'::smallint[], $4::timestamptz[], $5::bigint[]) as own (priority, available_at, id)
    left join reveille.told_head($1) as shared
        on shared.priority = own.priority and (shared.available_at, shared.id) > (own.available_at, own.id)
), due as materialized (
    select found.place, level.priority, found.available_at, found.id
    from level
    cross join lateral (
        select jobs.ctid as place, jobs.available_at, jobs.id
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
), shared_now as materialized (
    -- The head is shared as soon as the rows are locked, long before other sessions can see that the rows are reserved.
    select reveille.tell_head($1, last.priority, last.available_at, last.id)
    from (select * from due order by priority desc, available_at desc, id desc limit 1) as last
)
update reveille.jobs
set reserved_at = now(),
    reserved_by = $3,
    attempts = jobs.attempts + 1,
    unique_key = case when jobs.unique_until = 'started' then null else jobs.unique_key end,
    unique_until = case when jobs.unique_until = 'started' then null else jobs.unique_until end
-- The count is always less than 2. The condition makes Postgres execute shared_now.
where jobs.ctid = any (array(select place from due)) and (select count(*) from shared_now) < 2
returning
    jobs.id, jobs.kind, jobs.payload, jobs.priority, jobs.attempts, jobs.failures, jobs.max_attempts,
    jobs.reserved_at, jobs.available_at, jobs.created_at, jobs.key, jobs.tags, jobs.metadata,
    extract(epoch from jobs.timeout)::double precision as timeout_seconds,
    jobs.cancel_requested_at is not null as cancel_requested,
    case when not jobs.linked then jobs.ctid end as place
