-- Reserves due jobs of one queue that is limited as a whole: how many run at once, or how many start in a time. Runs in
-- a transaction that holds sql/limit_lock.sql, so that its count of running jobs is exact. Other queues have
-- sql/claim.sql and sql/claim_by_key.sql.
--
--   $1 text    queue
--   $2 bigint  maximum number of jobs
--   $3 bigint  worker; without a row in reveille.workers it gets no job
--
-- Returns one row per job, as sql/claim.sql does; if there is no job, one row whose id is null. Each row also has:
--   next_due_seconds  seconds until the next job is due, or until the rate allows it
--   limited           what the queue's limits are about: queue or key; null: it has none
--   uncounted         limited_since, if the queue's running jobs have not been counted for these limits. If so, the
--                     claim reserves nothing (sql/count_running.sql).
--
-- The rate is kept as a due time (the generic cell rate algorithm, ITU-T I.371). Each start moves that time by one
-- step. Jobs start while it is no further ahead than the burst.
with clock as materialized (
    select clock_timestamp() as now
), uncounted as materialized (
    select limited_since
    from reveille.queues
    where name = $1 and limited_since is distinct from (
        -- Only a row that this transaction has locked. If the row was not there to be locked, other workers may be
        -- claiming at the same time.
        select counted_for from reveille.limits where queue = $1 and xmax = pg_current_xact_id()::xid
    )
), settings as materialized (
    select
        max_running, max_running_per_key, rate_per_key, ordered,
        -- A margin of 1 %, since jobs start a little later than they are claimed, and not all equally late.
        1.01::double precision * extract(epoch from coalesce(rate_period, interval '1 second'))::double precision
            / rate_limit::double precision as step,
        1.01::double precision * extract(epoch from coalesce(rate_period, interval '1 second'))::double precision
            / rate_per_key::double precision as key_step,
        (coalesce(rate_burst, 1) - 1)::double precision as burst
    from reveille.queues
    where name = $1 and paused_at is null and limited = 'queue' and not exists (select from uncounted)
        and exists (select from reveille.workers where workers.id = $3)
), rate as materialized (
    -- In seconds: how far ahead of an even pace the queue is, and how far it may be. Each queue may be 10 ms ahead,
    -- since waking up takes time.
    select
        greatest(0, least(
            coalesce(extract(epoch from rates.next_at - clock.now)::double precision, 0),
            greatest(burst * step, 0.01) + step
        )) as ahead,
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
            (select floor((tolerance - ahead) / step + 1e-6::double precision) + 1::double precision from rate)
        ))::bigint
        from settings
    ), 0) as jobs
), due as materialized (
    select found.place
    from pg_catalog.unnest('{0,1,2,3}'::smallint[]) as level (priority)
    cross join lateral (
        select jobs.ctid as place
        from reveille.jobs
        where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
            and jobs.available_at <= (select now from clock)
        order by jobs.available_at, jobs.id
        limit (select jobs from room)
        for update skip locked
    ) as found
    limit (select jobs from room)
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
        -- The place is not used: a limited job is settled by its id.
        jobs.cancel_requested_at is not null as cancel_requested, null::tid as place
), spent as (
    insert into reveille.rates as rates (queue, key, next_at)
    select
        $1, '',
        clock.now + make_interval(secs => rate.ahead + (select count(*)::double precision from claimed) * rate.step)
    from rate, clock
    where exists (select from claimed)
    on conflict (queue, key) do update set next_at = excluded.next_at
), answer as (
    select least(
        -- Until the next delayed job is due.
        (
            -- Seconds are subtracted, not times, since an infinite time cannot be subtracted.
            select (min(extract(epoch from first.available_at)) - extract(epoch from clock.now))::double precision
            from pg_catalog.unnest('{0,1,2,3}'::smallint[]) as level (priority)
            cross join lateral (
                select jobs.available_at from reveille.jobs
                where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
                    and jobs.available_at > clock.now
                order by jobs.available_at
                limit 1
            ) as first
        ),
        -- Until the queue's rate allows the next job.
        (
            select paid.ahead - paid.tolerance
            from (
                select
                    rate.ahead + (select count(*)::double precision from claimed) * rate.step as ahead, rate.tolerance
                from rate
            ) as paid
            where paid.ahead > paid.tolerance
        )
    ) as next_due_seconds
    from clock
)
select
    claimed.*, answer.next_due_seconds, (select limited from reveille.queues where name = $1) as limited,
    (select limited_since from uncounted) as uncounted
from answer left join claimed on true
