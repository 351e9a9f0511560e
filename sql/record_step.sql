-- Records the value of a step, if the job's reservation stands. A step that is recorded already stays as it is, so the
-- statement can be repeated after its answer was lost.
--
--   $1 bigint       the job's id
--   $2 bigint       the worker that reserved the job
--   $3 int          the attempt
--   $4 timestamptz  reserved_at; with $1 to $3, the fence
--   $5 text         the step's name
--   $6 jsonb        the value
--
-- Returns one row if the reservation stands, else no row:
--   kind, value, outcome  of the recorded row, as in sql/steps.sql
--   seconds               always 0
--   failures              the job's failures: 0 after a new step
--
-- The fence locks the job's row, so that no rescue comes between the check and the new row. Without the lock, a worker
-- that was declared dead could record a step beside the worker that has the job now.
with own as materialized (
    select id, attempts, reserved_at, failures
    from reveille.jobs
    where (select set_config('lock_timeout', '5s', true)) is not null
        and id = $1 and reserved_by is not distinct from $2 and attempts = $3 and reserved_at is not distinct from $4
    for no key update
), recorded as (
    insert into reveille.steps (job, name, value, outcome, attempt, reserved_at)
    select id, $5, $6, 'done', attempts, reserved_at from own
    -- The update changes nothing. It is here to return the row.
    on conflict (job, name) do update set name = steps.name
    returning kind, value, outcome, recorded_at >= statement_timestamp() as is_new
), noted as (
    update reveille.jobs
    set linked = true, failures = case when (select is_new from recorded) then 0 else jobs.failures end
    where id = any (array(select own.id from own))
        and (not linked or (failures <> 0 and (select is_new from recorded)))
)
select
    recorded.kind, recorded.value, recorded.outcome, 0::double precision as seconds,
    case when recorded.is_new then 0 else own.failures end as failures
from recorded
cross join own
