-- Disarms a queue's bell for a worker. From now on, the worker looks for jobs without the bell.
--
--   $1 bigint  the worker's id
--   $2 text    the queue's name
delete from reveille.sleepers where queue = $2 and worker = $1
