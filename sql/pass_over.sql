-- Locks the jobs that a worker passes over, since a claim skips locked rows. The locks last until the transaction ends.
-- They are shared, so that several workers can hold them.
--
--   $1 bigint[]  the jobs' ids
select from reveille.jobs where jobs.id = any ($1::bigint[]) for key share skip locked
