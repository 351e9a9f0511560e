-- Locks a limited queue, so that one worker at a time claims from it and its count of running jobs is exact.
--
--   $1 text  queue
--
-- Locks no row while the queue's running jobs have not been counted (sql/count_running.sql): nothing may be claimed
-- then.
select from reveille.limits where queue = $1 for update
