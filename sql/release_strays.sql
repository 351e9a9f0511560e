-- Put back what is reserved by a worker that knows nothing of it: the answer to its claim was lost. No failure. Rows
-- that other sessions have locked are passed over, for a later look.
--
--   $1 bigint    worker
--   $2 bigint[]  the jobs that it knows to hold
--   $3 bigint[]  only these; null: all others
--
-- An attempt was made, whatever the row says of it: with none, the whole row would be checked again
-- (reveille.check_job).
with strays as materialized (
    select id
    from reveille.jobs
    where reserved_at is not null and reserved_by = $1 and id <> all ($2::bigint[]) and ($3::bigint[] is null or id = any ($3::bigint[]))
    for no key update skip locked
), released as (
    update reveille.jobs
    set reserved_at = null, reserved_by = null, attempts = greatest(attempts, 1)
    where id = any (array(select strays.id from strays))
    returning id, queue
)
select released.id from released, reveille.ring(array(select queue from released))
