-- Looks whether a run may go on, before its next transaction changes anything.
--
--   $1 bigint  the id of the run's action
--
-- Returns one row with stops, which is true if somebody asked the run to stop; no row if the run has ended.
select stop_requested_at is not null as stops from reveille.actions where id = $1 and ended_at is null
