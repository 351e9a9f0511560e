-- Records the end of a run.
--
--   $1 bigint  the id of the run's action
--   $2 text    the outcome: done, stopped or failed
--   $3 text    the error that ended the run; null: none
--   $4 jsonb   what is added to the detail
update reveille.actions
set outcome = $2, error = $3, detail = detail || $4, ended_at = clock_timestamp(), seen_at = clock_timestamp()
where id = $1 and ended_at is null
