-- Reserves due jobs of one queue that has limits or order per key. Runs in a transaction that holds the lock of
-- sql/limit_lock.sql, so that its count of running jobs is exact. sql/claim.sql and sql/claim_limited.sql serve other
-- queues.
--
--   $1 text     the queue's name
--   $2 bigint   the maximum number of jobs
--   $3 bigint   the worker's id; a worker without a row in reveille.workers gets no job
--   $4 text     the key after which this claim begins: the last key that an earlier claim visited
--   $5 bigint   the maximum number of keys to visit
--   $6 boolean  true to claim jobs without a key too; the claim may then read all jobs with a key
--
-- Returns the rows of sql/claim_limited.sql, with two more columns:
--   turn         the key after which the next claim should begin; null: this claim visited no key
--   whole        true if all keys were visited; null: the claim reached its number of jobs first
--
-- Keys take turns: the claim visits them in ascending order, beginning after $4, and goes on with the lowest key after
-- the highest. Each visited key gives as many jobs as its own limits allow. A key with no job to give costs one to five
-- index probes. Jobs without a key are under no key's limits. Rates are kept as in sql/claim_limited.sql.
--
-- Queue and key are compared as rows, with >= and <=, because a session keeps its plan. With plain equality, a session
-- that plans while there are few jobs could choose an index in which it must later read far more jobs than it needs.
with recursive clock as materialized (
    select clock_timestamp() as now
), pausing as materialized (
    select exists (select from reveille.pauses where coalesce(pauses.queue, '') = any (array[$1, ''])) as pauses
), uncounted as materialized (
    select limited_since
    from reveille.queues
    where name = $1 and limited_since is distinct from (
        -- This query reads the row only if this transaction has locked the row. If the row did not exist when
        -- sql/limit_lock.sql ran, nothing is locked, and other workers may be claiming at the same time. Then this
        -- claim takes no job.
        select counted_for from reveille.limits where queue = $1 and xmax = pg_current_xact_id()::xid
    )
), settings as materialized (
    select
        max_running, max_running_per_key, rate_per_key, ordered,
        -- A step is the time between two starts at an even pace, and 1 % more. Jobs start a little later than they are
        -- claimed, and not all equally late, so without this margin more jobs than the rate allows could start within
        -- one period.
        1.01::double precision * extract(epoch from coalesce(rate_period, interval '1 second'))::double precision
            / rate_limit::double precision as step,
        1.01::double precision * extract(epoch from coalesce(rate_period, interval '1 second'))::double precision
            / rate_per_key::double precision as key_step,
        (coalesce(rate_burst, 1) - 1)::double precision as burst
    from reveille.queues
    where name = $1 and paused_at is null and limited = 'key' and not exists (select from uncounted)
        and exists (select from reveille.workers where workers.id = $3)
), rate as materialized (
    -- `lead` is the seconds by which the queue's starts are early, compared with an even pace; `tolerance` is the
    -- seconds by which they may be early. The tolerance is 10 ms at least, since waking up takes time.
    select
        greatest(0, least(
            coalesce(extract(epoch from rates.next_at - clock.now)::double precision, 0),
            greatest(burst * step, 0.01) + step
        )) as lead,
        greatest(burst * step, 0.01) as tolerance, step
    from settings
    cross join clock
    left join reveille.rates on rates.queue = $1 and rates.key = ''
    where step is not null
), room as materialized (
    select coalesce((
        select greatest(0, least(
            $2,
            max_running - (
                select count(*) from reveille.jobs
                where jobs.queue = $1 and jobs.limited and jobs.reserved_at is not null
            ),
            (select floor((tolerance - lead) / step + 1e-6::double precision) + 1::double precision from rate)
        ))::bigint
        from settings
    ), 0) as jobs
), looked_at as materialized (
    -- A claim that may meet covered jobs looks at more jobs than it reserves.
    select case when pauses and jobs > 0 then greatest(jobs, 1000) else jobs end as jobs from room cross join pausing
), turn (key, visited, wrapped) as (
    -- The order is that of the index jobs_turn, which contains only waiting jobs.
    select coalesce(above.key, first.key), 1, above.key is null
    from room
    left join lateral (
        select jobs.key from reveille.jobs
        where jobs.queue = $1 and jobs.reserved_at is null and jobs.paused_by is null and jobs.key is not null
            and jobs.key > $4
        order by jobs.key, jobs.priority, jobs.available_at, jobs.id
        limit 1
    ) as above on true
    left join lateral (
        select jobs.key from reveille.jobs
        where above.key is null and jobs.queue = $1 and jobs.reserved_at is null and jobs.paused_by is null
            and jobs.key is not null
        order by jobs.key, jobs.priority, jobs.available_at, jobs.id
        limit 1
    ) as first on true
    where room.jobs > 0 and coalesce(above.key, first.key) is not null
    union all
    select coalesce(above.key, first.key), turn.visited + 1, turn.wrapped or above.key is null
    from turn
    left join lateral (
        select jobs.key from reveille.jobs
        where jobs.queue = $1 and jobs.reserved_at is null and jobs.paused_by is null and jobs.key is not null
            and jobs.key > turn.key
        order by jobs.key, jobs.priority, jobs.available_at, jobs.id
        limit 1
    ) as above on true
    left join lateral (
        select jobs.key from reveille.jobs
        where above.key is null and jobs.queue = $1 and jobs.reserved_at is null and jobs.paused_by is null
            and jobs.key is not null
        order by jobs.key, jobs.priority, jobs.available_at, jobs.id
        limit 1
    ) as first on true
    where turn.visited < $5
        and not (turn.wrapped and above.key is null)
        and not ((turn.wrapped or above.key is null) and coalesce(above.key, first.key) > $4)
), found as materialized (
    -- The keys give jobs in turn, until the claim has reached its number of jobs. The scans skip jobs that other
    -- sessions have locked. But if the first job of an ordered key is locked, its key gives no job, because no later
    -- job of the key may start before it.
    select keyless.id, keyless.place, keyless.paused_by, null::text as key, 0 as visited, null::bigint as allowed
    from pg_catalog.unnest('{0,1,2,3}'::smallint[]) as level (priority)
    cross join lateral (
        select
            jobs.id, jobs.ctid as place,
            case when (select pauses from pausing) then reveille.pause_of(jobs.queue, jobs.kind, jobs.key) end
                as paused_by
        from reveille.jobs
        where $6 and jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
            and jobs.paused_by is null and jobs.key is null and jobs.available_at <= (select now from clock)
        order by jobs.available_at, jobs.id
        limit (select jobs from looked_at)
        for update skip locked
    ) as keyless
    union all
    select candidate.id, candidate.place, candidate.paused_by, turn.key, turn.visited, allowed.jobs
    from turn
    cross join settings
    left join lateral (
        select least(
            extract(epoch from rates.next_at - clock.now)::double precision,
            greatest(burst * key_step, 0.01) + key_step
        ) as lead
        from clock
        cross join reveille.rates
        where rates.queue = $1 and rates.key = turn.key and key_step is not null
    ) as used on true
    cross join lateral (
        select greatest(0, least(
            $2,
            coalesce(case when ordered then 1 end, max_running_per_key) - case
                when ordered or max_running_per_key is not null then (
                    select count(*) from reveille.jobs
                    where (jobs.queue, jobs.key) >= ($1, turn.key) and (jobs.queue, jobs.key) <= ($1, turn.key)
                        and jobs.limited and jobs.reserved_at is not null
                )
            end,
            floor((greatest(burst * key_step, 0.01) - greatest(0, used.lead)) / key_step + 1e-6::double precision)
                + 1::double precision
        ))::bigint as jobs
    ) as allowed
    cross join lateral (
        select level.id, level.place, level.paused_by
        from (
            select due.id, due.place, due.paused_by
            from pg_catalog.unnest('{0,1,2,3}'::smallint[]) as level (priority)
            cross join lateral (
                select
                    jobs.id, jobs.ctid as place,
                    case when (select pauses from pausing) then reveille.pause_of(jobs.queue, jobs.kind, jobs.key) end
                        as paused_by
                from reveille.jobs
                where jobs.queue = $1 and jobs.key = turn.key and jobs.priority = level.priority
                    and jobs.reserved_at is null and jobs.paused_by is null and jobs.key is not null
                    and jobs.available_at <= (select now from clock)
                order by jobs.available_at, jobs.id
                limit case when (select pauses from pausing) then greatest(allowed.jobs, 100) else allowed.jobs end
                for update skip locked
            ) as due
            where not ordered and allowed.jobs > 0
            limit case when (select pauses from pausing) then greatest(allowed.jobs, 100) else allowed.jobs end
        ) as level
        union all
        select head.id, head.place, head.paused_by
        from (
            select
                jobs.id, jobs.ctid as place, jobs.reserved_at, jobs.paused_by as parked_by, jobs.available_at,
                case when (select pauses from pausing) then reveille.pause_of(jobs.queue, jobs.kind, jobs.key) end
                    as paused_by
            from reveille.jobs
            where ordered and allowed.jobs > 0
                and (jobs.queue, jobs.key) >= ($1, turn.key) and (jobs.queue, jobs.key) <= ($1, turn.key)
                and jobs.key is not null
            order by jobs.queue, jobs.key, jobs.id
            limit 1
        ) as head
        where head.reserved_at is null and head.parked_by is null and head.available_at <= (select now from clock)
    ) as candidate
    limit (select jobs from looked_at)
), taken as materialized (
    select place, key, visited from found where not (select pauses from pausing)
    union all
    (
        -- A claim that may meet covered jobs has looked at more jobs of each key than the key may give.
        select place, key, visited
        from (
            select *, row_number() over (partition by visited order by nth) as place_in_key
            from (select *, row_number() over () as nth from found where (select pauses from pausing)) as numbered
            where paused_by is null
        ) as open
        where key is null or place_in_key <= allowed
        order by nth
        limit (select jobs from room)
    )
), due as materialized (
    select jobs.ctid as place
    from reveille.jobs
    where jobs.ctid = any (array(select place from taken)) and jobs.reserved_by is null
    for update skip locked
), claimed as (
    update reveille.jobs
    set reserved_at = (select now from clock),
        reserved_by = $3,
        attempts = jobs.attempts + 1,
        limited = true,
        unique_key = case when jobs.unique_until = 'started' then null else jobs.unique_key end,
        unique_until = case when jobs.unique_until = 'started' then null else jobs.unique_until end
    where jobs.ctid = any (array(select place from due))
    returning
        jobs.id, jobs.kind, jobs.payload, jobs.priority, jobs.attempts, jobs.failures, jobs.max_attempts,
        jobs.reserved_at, jobs.available_at, jobs.created_at, jobs.key, jobs.tags, jobs.metadata,
        extract(epoch from jobs.timeout)::double precision as timeout_seconds,
        -- A limited job is settled by its id, so no tuple id is returned.
        jobs.cancel_requested_at is not null as cancel_requested, null::tid as place
), spent as (
    insert into reveille.rates as rates (queue, key, next_at)
    select
        $1, '',
        clock.now + make_interval(secs => rate.lead + (select count(*)::double precision from claimed) * rate.step)
    from rate, clock
    where exists (select from claimed)
    on conflict (queue, key) do update set next_at = excluded.next_at
), spent_by_key as (
    insert into reveille.rates as rates (queue, key, next_at)
    select
        $1, claimed.key,
        least(
            greatest(coalesce(known.next_at, clock.now), clock.now),
            clock.now + make_interval(secs => greatest(burst * key_step, 0.01) + key_step)
        ) + make_interval(secs => count(*)::double precision * key_step)
    from claimed
    cross join settings
    cross join clock
    left join reveille.rates as known on known.queue = $1 and known.key = claimed.key
    where key_step is not null and claimed.key is not null
    group by claimed.key, known.next_at, clock.now, key_step, burst
    on conflict (queue, key) do update set next_at = excluded.next_at
), filled as materialized (
    -- `room` is true if the claim has reached its number of jobs, and `looks` if it has looked at as many jobs as it
    -- may. In both cases some keys may not have been visited.
    select
        (select count(*) from taken) >= (select jobs from room) as room,
        (select count(*) from found) >= (select jobs from looked_at) as looks
), answer as (
    select least(
        -- The seconds until the next delayed job is due.
        (
            -- Seconds are subtracted, not times, since Postgres before 17 cannot subtract an infinite time.
            select (min(extract(epoch from first.available_at)) - extract(epoch from clock.now))::double precision
            from pg_catalog.unnest('{0,1,2,3}'::smallint[]) as level (priority)
            cross join lateral (
                select jobs.available_at from reveille.jobs
                where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
                    and jobs.paused_by is null and jobs.available_at > clock.now
                order by jobs.available_at
                limit 1
            ) as first
        ),
        -- The seconds until the queue's rate allows the next job.
        (
            select paid.lead - paid.tolerance
            from (
                select
                    rate.lead + (select count(*)::double precision from claimed) * rate.step as lead, rate.tolerance
                from rate
            ) as paid
            where paid.lead > paid.tolerance
        ),
        -- The seconds until the rate of a visited key allows that key's next job.
        (
            select min(
                extract(epoch from rates.next_at - clock.now)::double precision - greatest(burst * key_step, 0.01)
            )
            from turn
            cross join settings
            cross join reveille.rates
            where not (select room or looks from filled) and key_step is not null
                and rates.queue = $1 and rates.key = turn.key
                and extract(epoch from rates.next_at - clock.now)::double precision > greatest(burst * key_step, 0.01)
        ),
        case when (select count(*) from claimed) < (select count(*) from taken) then 0 end
    ) as next_due_seconds
    from clock
)
select
    claimed.*, answer.next_due_seconds, (select limited from reveille.queues where name = $1) as limited,
    (select limited_since from uncounted) as uncounted,
    case
        when filled.room
        then (select taken.key from taken where taken.key is not null order by taken.visited desc limit 1)
        when filled.looks
        then (select found.key from found where found.key is not null order by found.visited desc limit 1)
        else (select turn.key from turn order by turn.visited desc limit 1)
    end as turn,
    case when not (filled.room or filled.looks) then (select count(*) from turn) < $5 end as whole,
    case when (select pauses from pausing) then array(select id from found where paused_by is not null) end as covered,
    exists (select from reveille.jobs where jobs.queue = $1 and jobs.paused_by is not null) as has_parked
from answer cross join filled left join claimed on true
