-- Unparks jobs whose pause has ended.
--
--   $1 bigint  the maximum number of jobs
--
-- Returns one row:
--   unparked  the number of jobs that were unparked
select reveille.unpark($1) as unparked
