-- Locks a limited queue, so that one worker at a time claims from it and the worker's count of running jobs is exact.
--
--   $1 text  the queue's name
--
-- Locks no row if the queue's running jobs have not been counted yet (sql/count_running.sql). In that case, the claim
-- in this transaction reserves no job.
select from reveille.limits where queue = $1 for update
