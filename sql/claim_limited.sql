-- Reserves due jobs of one queue whose limits are for the whole queue: the number of jobs that run at once, or the
-- number that start in a period. Runs in a transaction that holds the lock of sql/limit_lock.sql, so that its count of
-- running jobs is exact. sql/claim.sql and sql/claim_by_key.sql serve other queues.
--
--   $1 text    the queue's name
--   $2 bigint  the maximum number of jobs
--   $3 bigint  the worker's id; a worker without a row in reveille.workers gets no job
--
-- Returns one row per job, with the columns of sql/claim.sql; if there is no job, one row whose id is null. Each row
-- also has:
--   next_due_seconds  the seconds until the next job is due, or until the rate allows it
--   limited           queue: the limits are for the whole queue; key: a limit or the order is per key; null: no limits
--   uncounted         limited_since, if the queue's running jobs have not been counted for these limits. Then the claim
--                     reserves nothing, and sql/count_running.sql counts the jobs.
--   covered           the due jobs that a pause covers: this claim has met them, and sql/park.sql parks them
--   has_parked        true if the queue has parked jobs
--
-- The use of the rate is kept as one time, next_at (the generic cell rate algorithm, ITU-T I.371). Each start makes
-- next_at later by one step. Jobs start while next_at is no later than now plus the burst.
with clock as materialized (
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
    where name = $1 and paused_at is null and limited = 'queue' and not exists (select from uncounted)
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
), due as materialized (
    select found.id, found.place, found.paused_by
    from pg_catalog.unnest('{0,1,2,3}'::smallint[]) as level (priority)
    cross join lateral (
        select
            jobs.id, jobs.ctid as place,
            case when (select pauses from pausing) then reveille.pause_of(jobs.queue, jobs.kind, jobs.key) end
                as paused_by
        from reveille.jobs
        where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
            and jobs.paused_by is null and jobs.available_at <= (select now from clock)
        order by jobs.available_at, jobs.id
        limit (select jobs from looked_at)
        for update skip locked
    ) as found
    limit (select jobs from looked_at)
), claimed as (
    update reveille.jobs
    set reserved_at = (select now from clock),
        reserved_by = $3,
        attempts = jobs.attempts + 1,
        limited = true,
        unique_key = case when jobs.unique_until = 'started' then null else jobs.unique_key end,
        unique_until = case when jobs.unique_until = 'started' then null else jobs.unique_until end
    where jobs.ctid = any (array(select place from due where paused_by is null limit (select jobs from room)))
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
        )
    ) as next_due_seconds
    from clock
)
select
    claimed.*, answer.next_due_seconds, (select limited from reveille.queues where name = $1) as limited,
    (select limited_since from uncounted) as uncounted,
    case when (select pauses from pausing) then array(select id from due where paused_by is not null) end as covered,
    exists (select from reveille.jobs where jobs.queue = $1 and jobs.paused_by is not null) as has_parked
from answer left join claimed on true
