-- Lists a worker's strays: jobs that it reserved without knowing it. If their release fails, it is repeated for ever
-- smaller parts of them, until the job is found that the server refuses.
--
--   $1 bigint    worker
--   $2 bigint[]  jobs that it knows to hold
--
-- Returns one row per job: its id, attempts and reserved_at.
select id, attempts, reserved_at
from reveille.jobs
where reserved_at is not null and reserved_by = $1 and id <> all ($2::bigint[])
