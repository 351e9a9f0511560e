-- Completes a job in the caller's transaction, fenced by the job's reservation.
--
--   $1 bigint            the job's id
--   $2 bigint            the worker that reserved the job
--   $3 int               the attempt
--   $4 timestamptz       reserved_at; with $2 and $3, the reservation
--   $5 double precision  the run time in seconds
--
-- Returns one row: the transaction's id; null if the reservation no longer stands.
select reveille.complete_in($1, $2, $3, $4, $5) as transaction
