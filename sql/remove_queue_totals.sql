-- Removes the totals of a queue whose counters have been removed. This follows sql/remove_queue.sql, whose deletion of
-- the counters adds them to the totals.
--
--   $1 text  the queue's name
delete from reveille.totals where queue = $1 and not exists (select from reveille.counters where queue = $1)
