-- Complete a job in the caller's transaction, fenced by its reservation.
--
--   $1 bigint  id        $2 bigint       worker
--   $3 int     attempts  $4 timestamptz  reserved_at
--   $5 double precision  run seconds
--
-- One row, with the transaction's id; null if the reservation no longer stands.
select reveille.complete_in($1, $2, $3, $4, $5) as transaction
