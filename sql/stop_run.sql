-- Asks a run over many jobs to stop.
--
--   $1 bigint  the id of the run's action
--   $2 jsonb   what is added to the run's detail: who asked
--
-- Returns one row with the id; no row if no run has this id, or if it has ended.
update reveille.actions
set stop_requested_at = coalesce(stop_requested_at, clock_timestamp()),
    detail = case when stop_requested_at is null then detail || $2 else detail end
where id = $1 and ended_at is null and done is not null
returning id
