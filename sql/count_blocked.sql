-- Counts the blocked jobs of some queues.
--
--   $1 text[]  the queues
--
-- Returns one row: blocked, their number.
select count(*) as blocked from reveille.blocked_jobs where queue = any ($1)
