-- Put back what is reserved by a worker that knows nothing of it: the answer to its claim was lost. No failure.
--
--   $1 bigint    worker
--   $2 bigint[]  the jobs that it knows to hold
with released as (
    update reveille.jobs
    set reserved_at = null, reserved_by = null
    where jobs.reserved_at is not null and jobs.reserved_by = $1 and jobs.id <> all ($2::bigint[])
    returning jobs.id, jobs.queue
)
select released.id from released, reveille.ring(array(select queue from released))
