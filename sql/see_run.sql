-- Notes a sign of life of a run.
--
--   $1 bigint  the id of the run's action
update reveille.actions set seen_at = clock_timestamp() where id = $1 and ended_at is null
