-- Reserve due jobs of one queue that has limits for itself: so many at once, so many in a time. In a transaction that holds
-- sql/limit_lock.sql, so that it counts what runs; sql/claim.sql and sql/claim_by_key.sql are for other queues.
--
--   $1 text    queue
--   $2 bigint  how many at most
--   $3 bigint  worker; one without a row in reveille.workers gets nothing
--
-- The rate is kept as a due time (the generic cell rate algorithm, ITU-T I.371): each start moves it by a step, and jobs start while
-- it is no further ahead than the burst.
--
-- A row a job, as sql/claim.sql answers; one row with null for id if there is none. Also next_due_seconds: in how many seconds the
-- next one is due, or allowed by the rate; limited: what the queue's limits are about, or null if it has none; and uncounted: since
-- when it has these, if what runs has not been counted for them. Then nothing is claimed (sql/count_running.sql).
with clock as materialized (
    select clock_timestamp() as now
), uncounted as materialized (
    select limited_since
    from reveille.queues
    where name = $1 and limited_since is distinct from (
        -- Unless this transaction has locked the row, others may claim at the same time: it was not there to be locked.
        select counted_for from reveille.limits where queue = $1 and xmax = pg_current_xact_id()::xid
    )
), settings as materialized (
    select
        max_running, max_running_per_key, rate_per_key, ordered,
        -- The rate is kept with a margin of a hundredth, since jobs start a little later than they are claimed, some more than others.
        1.01::double precision * extract(epoch from coalesce(rate_period, interval '1 second'))::double precision
            / rate_limit::double precision as step,
        1.01::double precision * extract(epoch from coalesce(rate_period, interval '1 second'))::double precision
            / rate_per_key::double precision as key_step,
        (coalesce(rate_burst, 1) - 1)::double precision as burst
    from reveille.queues
    where name = $1 and paused_at is null and limited = 'queue' and not exists (select from uncounted)
        and exists (select from reveille.workers where workers.id = $3)
), rate as materialized (
    -- In seconds: how far ahead of an even pace the queue is, and how far it may be. A hundredth of a second is everybody's: waking up takes time.
    select
        greatest(0, least(coalesce(extract(epoch from rates.next_at - clock.now)::double precision, 0), greatest(burst * step, 0.01) + step)) as ahead,
        greatest(burst * step, 0.01) as tolerance, step
    from settings
    cross join clock
    left join reveille.rates on rates.queue = $1 and rates.key = ''
    where step is not null
), room as materialized (
    select coalesce((
        select greatest(0, least(
            $2,
            max_running - (select count(*) from reveille.jobs where jobs.queue = $1 and jobs.limited and jobs.reserved_at is not null),
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
        -- Of no use: a limited job is settled by its id.
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
        -- The next one whose time has not come.
        (
            -- Not of the difference, which a row with an infinite time does not have.
            select (min(extract(epoch from first.available_at)) - extract(epoch from clock.now))::double precision
            from pg_catalog.unnest('{0,1,2,3}'::smallint[]) as level (priority)
            cross join lateral (
                select jobs.available_at from reveille.jobs
                where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null and jobs.available_at > clock.now
                order by jobs.available_at
                limit 1
            ) as first
        ),
        -- The next one that the rate allows.
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
