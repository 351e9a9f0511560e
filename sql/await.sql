-- How a job ended; or, if it has not, mark it as one whose end is to be notified.
--
--   $1 bigint  id
select state, reason, result, errors from reveille.await($1)
