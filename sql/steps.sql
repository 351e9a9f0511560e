-- Returns the recorded steps of a job.
--
--   $1 bigint  the job's id
--
-- Returns one row per step:
--   name     the step's name
--   kind     step, sleep or wait
--   value    the value of a step, or the payload of the event that a wait has got
--   outcome  done or timed_out; null: a sleep or a wait is not over
select name, kind, value, outcome from reveille.steps where job = $1
