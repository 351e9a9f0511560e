-- Who has locked the rows of jobs, for the log: the transaction that a row names, and its session.
--
--   $1 bigint[]  ids
--
-- Returns a row a job: pid and application of the session, or the name of the prepared transaction; all null where
-- several transactions share the lock, or where it is gone.
select jobs.id, session.pid, activity.application_name, prepared.gid
from reveille.jobs
left join pg_catalog.pg_locks as session
    on session.locktype = 'transactionid' and session.transactionid = jobs.xmax and session.mode = 'ExclusiveLock' and session.granted
left join pg_catalog.pg_stat_activity as activity on activity.pid = session.pid
left join pg_catalog.pg_prepared_xacts as prepared on prepared.transaction = jobs.xmax
where jobs.id = any ($1::bigint[])
