-- Lock the jobs that a worker passes over, until the transaction ends: a claim skips what is locked. Workers share the
-- lock.
--
--   $1 bigint[]  ids
select from reveille.jobs where jobs.id = any ($1::bigint[]) for key share skip locked
