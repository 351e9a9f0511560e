-- Looks whether a run may go on, before its next transaction changes anything.
--
--   $1 bigint  the id of the run's action
--
-- Returns no row if the run has ended; else one row:
--   stops                                    true if somebody asked the run to stop
--   done, requested, left_over, passed_over  the numbers of jobs so far
--   last_id                                  the highest id that the run has reached; null: none
select stop_requested_at is not null as stops, done, requested, left_over, passed_over, last_id
from reveille.actions where id = $1 and ended_at is null
