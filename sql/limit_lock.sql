-- Who claims from a queue that has limits does so alone: what this statement's transaction then reads is what runs.
-- There is no row as long as nothing may be claimed, since what runs has not been counted (sql/count_running.sql).
--
--   $1 text  queue
select from reveille.limits where queue = $1 for update
