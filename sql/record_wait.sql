-- Begins a sleep or a wait for an event, or goes on with it, if the job's reservation stands. The end of the sleep or
-- the wait is recorded once, and so is its outcome. Both stay as they are if the statement is repeated.
--
--   $1 bigint            the job's id
--   $2 bigint            the worker that reserved the job
--   $3 int               the attempt
--   $4 timestamptz       reserved_at; with $1 to $3, the fence
--   $5 text              the name of the sleep, or the event
--   $6 text              sleep or wait
--   $7 double precision  the seconds that a new sleep or wait takes at most
--
-- Returns one row if the reservation stands, else no row:
--   kind, value, outcome  of the recorded row, as in sql/steps.sql
--   seconds               the seconds until a sleep or a wait ends that is not over
--   failures              the job's failures: 0 after something new was recorded
--
-- An event that has come counts, even if the time is over. The row in reveille.waits is not written here, but with the
-- snooze of the job (sql/settle_waiting.sql): an event that makes the job due before its snooze would be overwritten.
with own as materialized (
    select id, attempts, reserved_at, failures
    from reveille.jobs
    where (select set_config('lock_timeout', '5s', true)) is not null
        and id = $1 and reserved_by is not distinct from $2 and attempts = $3 and reserved_at is not distinct from $4
    for no key update
), recorded as (
    insert into reveille.steps as steps (job, name, kind, value, until, outcome, attempt, reserved_at)
    select
        own.id, $5, $6, come.payload, clock_timestamp() + make_interval(secs => $7),
        case
            when come.payload is not null then 'done'
            when $7 > 0::double precision then null
            when $6 = 'wait' then 'timed_out'
            else 'done'
        end,
        own.attempts, own.reserved_at
    from own
    cross join lateral (
        select (select events.payload from reveille.events where events.name = $5 and $6 = 'wait') as payload
    ) as come
    on conflict (job, name) do update
    set (value, outcome, recorded_at) = (
        select
            case when ends.outcome is null then steps.value else excluded.value end,
            coalesce(ends.outcome, steps.outcome),
            case when ends.outcome is null then steps.recorded_at else clock_timestamp() end
        from (
            select case
                when steps.outcome is not null or steps.kind <> excluded.kind then null
                when excluded.value is not null then 'done'
                when steps.until > clock_timestamp() then null
                when steps.kind = 'wait' then 'timed_out'
                else 'done'
            end
        ) as ends (outcome)
    )
    returning
        kind, value, outcome, until, recorded_at >= statement_timestamp() as is_new
), served as (
    delete from reveille.waits
    where job = any (array(select own.id from own)) and event = $5
        and (select outcome from recorded) is not null
), noted as (
    update reveille.jobs
    set linked = true, failures = case when (select is_new from recorded) then 0 else jobs.failures end
    where id = any (array(select own.id from own))
        and (not linked or (failures <> 0 and (select is_new from recorded)))
)
select
    recorded.kind, recorded.value, recorded.outcome,
    greatest(extract(epoch from recorded.until) - extract(epoch from clock_timestamp()), 0)::double precision
        as seconds,
    case when recorded.is_new then 0 else own.failures end as failures
from recorded
cross join own
