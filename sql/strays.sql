-- Lists a worker's strays: jobs that are reserved for it without its knowledge. Runs if the release of the strays
-- fails. The release is then repeated for smaller and smaller parts of these jobs, until it finds the one job that the
-- server refuses.
--
--   $1 bigint    the worker's id
--   $2 bigint[]  the jobs that the worker knows to hold
--
-- Returns one row per job: its id, attempts and reserved_at.
select id, attempts, reserved_at
from reveille.jobs
where reserved_at is not null and reserved_by = $1 and id <> all ($2::bigint[])
