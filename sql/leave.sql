-- Removes the row of a worker that has settled or released all of its jobs.
--
--   $1 bigint  worker
delete from reveille.workers where id = $1
