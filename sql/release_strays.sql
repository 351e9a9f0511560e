-- Puts back a worker's strays: jobs that it reserved without knowing it, since the answer to its claim was lost. Counts
-- no failure. Passes over rows that other sessions have locked, for a later look.
--
--   $1 bigint    worker
--   $2 bigint[]  jobs that it knows to hold
--   $3 bigint[]  only these jobs; null: all strays
--
-- Returns one row per job: its id.
--
-- attempts becomes 1 at least. With less, the trigger check_unclaimed would check the whole row again.
with strays as materialized (
    select id
    from reveille.jobs
    where reserved_at is not null and reserved_by = $1 and id <> all ($2::bigint[])
        and ($3::bigint[] is null or id = any ($3::bigint[]))
    for no key update skip locked
), released as (
    update reveille.jobs
    set reserved_at = null, reserved_by = null, attempts = greatest(attempts, 1)
    where id = any (array(select strays.id from strays))
    returning id, queue
)
select released.id from released, reveille.ring(array(select queue from released))
