-- Deletes one dead job permanently.
--
--   $1 bigint  the job's id
--
-- Returns one row with the job's id; no row if no dead job has this id.
delete from reveille.dead_jobs where id = $1 returning id
