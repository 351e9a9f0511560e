-- Completes a job in the caller's transaction, fenced by the job's reservation.
--
--   $1 bigint            job
--   $2 bigint            worker that reserved it
--   $3 int               attempt
--   $4 timestamptz       reserved_at; with $2 and $3, the reservation
--   $5 double precision  run time in seconds
--
-- Returns one row: the transaction's id; null if the reservation no longer stands.
select reveille.complete_in($1, $2, $3, $4, $5) as transaction
