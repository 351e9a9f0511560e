-- Returns how a job ended. If the job is live, marks it as awaited, so that its end is notified.
--
--   $1 bigint  the job's id
--
-- Returns one row: state, reason, result and errors, as documented at reveille.await.
select state, reason, result, errors from reveille.await($1)
