-- Who claims from a queue that has limits does so alone: what this statement's transaction then reads is what runs.
--
--   $1 text  queue
select pg_advisory_xact_lock(hashtextextended('reveille.limits.' || $1, 0))
