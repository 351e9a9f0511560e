-- Lets parked jobs go whose pause is over.
--
--   $1 bigint  the maximum number of jobs
--
-- Returns one row:
--   unparked  the number of jobs that were let go
select reveille.unpark($1) as unparked
