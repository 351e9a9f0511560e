-- Reserve due jobs of one queue as sql/claim.sql does, where others claim from it at the same time and it is full: from no lower than
-- where they have got, and telling them how far this claim gets. So none passes over what the others have reserved.
--
--   $1 text           queue
--   $2 bigint         how many at most
--   $3 bigint         worker; one without a row in reveille.workers gets nothing
--   $4 timestamptz[]  per level, from which place in the order of claims to look if the others are not above it: due time
--   $5 bigint[]       and id
--
-- Answers as sql/claim.sql does.
with level as materialized (
    select
        own.priority,
        case when told.id is null then own.available_at else told.available_at end as available_at,
        coalesce(told.id, own.id) as id
    from unnest('{0,1,2,3}'::smallint[], $4::timestamptz[], $5::bigint[]) as own (priority, available_at, id)
    left join reveille.told_head($1) as told
        on told.priority = own.priority and (told.available_at, told.id) > (own.available_at, own.id)
), due as materialized (
    select found.place, level.priority, found.available_at, found.id
    from level
    cross join lateral (
        select jobs.ctid as place, jobs.available_at, jobs.id
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
), telling as materialized (
    -- As soon as they are locked, long before they can be seen to be reserved.
    select reveille.tell_head($1, last.priority, last.available_at, last.id)
    from (select * from due order by priority desc, available_at desc, id desc limit 1) as last
)
update reveille.jobs
set reserved_at = now(),
    reserved_by = $3,
    attempts = jobs.attempts + 1,
    unique_key = case when jobs.unique_until = 'started' then null else jobs.unique_key end,
    unique_until = case when jobs.unique_until = 'started' then null else jobs.unique_until end
where jobs.ctid = any (array(select place from due)) and (select count(*) from telling) < 2
returning
    jobs.id, jobs.kind, jobs.payload, jobs.priority, jobs.attempts, jobs.failures, jobs.max_attempts,
    jobs.reserved_at, jobs.available_at, jobs.created_at, jobs.key, jobs.tags, jobs.metadata,
    extract(epoch from jobs.timeout)::double precision as timeout_seconds,
    jobs.cancel_requested_at is not null as cancel_requested, jobs.ctid as place
