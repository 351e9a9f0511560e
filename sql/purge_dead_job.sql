-- Deletes one dead job permanently.
--
--   $1 bigint  job
--
-- Returns its id, or no row if there is no such dead job.
delete from reveille.dead_jobs where id = $1 returning id
