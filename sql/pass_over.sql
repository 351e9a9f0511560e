-- Locks jobs that a worker passes over until the transaction ends, since a claim skips locked rows. The lock is shared,
-- so that several workers can hold it.
--
--   $1 bigint[]  the jobs' ids
select from reveille.jobs where jobs.id = any ($1::bigint[]) for key share skip locked
