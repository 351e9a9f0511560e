-- Deletes the row of a stopping worker, which has settled or released all of its jobs.
--
--   $1 bigint  the worker's id
delete from reveille.workers where id = $1
