-- What is reserved by a worker that knows nothing of it, for a release that has to find out which of these it cannot
-- put back.
--
--   $1 bigint    worker
--   $2 bigint[]  the jobs that it knows to hold
select id, attempts, reserved_at
from reveille.jobs
where reserved_at is not null and reserved_by = $1 and id <> all ($2::bigint[])
