-- Enqueues a job that a handler runs, and records its id as a step, if the reservation of the handler's job stands.
--
--   $1 bigint       the job's id
--   $2 bigint       the worker that reserved the job
--   $3 int          the attempt
--   $4 timestamptz  reserved_at; with $1 to $3, the fence
--   $5 text         the step's name
--   $6 text         the job to enqueue, as JSON
--
-- Returns one row if the reservation stands, else no row, as sql/record_step.sql does. The value is the id.
select kind, value, outcome, seconds, failures
from reveille.run_child($1, $2, $3, $4, $5, $6::jsonb)
