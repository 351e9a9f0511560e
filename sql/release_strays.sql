-- Releases a worker's strays: jobs that are reserved for the worker without its knowledge, because the answer to a
-- claim was lost. Counts no failure. Passes over rows that other sessions have locked; the worker's next check for
-- strays tries these again.
--
--   $1 bigint    the worker's id
--   $2 bigint[]  the jobs that the worker knows to hold
--   $3 bigint[]  the only jobs to release; null: all strays
--
-- Returns one row per released job: its id.
--
-- The update sets `attempts` at least to 1, because with 0 the trigger check_unclaimed would check the whole row again.
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
