-- Disarms a queue's bell for a worker, which looks for jobs without the bell from now on.
--
--   $1 bigint  the worker's id
--   $2 text    the queue's name
delete from reveille.sleepers where queue = $2 and worker = $1
