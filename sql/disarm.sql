-- Disarms a queue's bell for a worker, which looks for jobs by itself from now on.
--
--   $1 bigint  worker
--   $2 text    queue
delete from reveille.sleepers where queue = $2 and worker = $1
