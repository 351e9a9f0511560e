-- Names the sessions that have locked the rows of jobs, for the log.
--
--   $1 bigint[]  the jobs' ids
--
-- Returns one row per job: the process id and the application name of the session, or the name of the prepared
-- transaction. All are null if several transactions share the lock, or if no transaction holds it any more.
select jobs.id, session.pid, activity.application_name, prepared.gid
from reveille.jobs
left join pg_catalog.pg_locks as session
    on session.locktype = 'transactionid' and session.transactionid = jobs.xmax and session.mode = 'ExclusiveLock'
        and session.granted
left join pg_catalog.pg_stat_activity as activity on activity.pid = session.pid
left join pg_catalog.pg_prepared_xacts as prepared on prepared.transaction = jobs.xmax
where jobs.id = any ($1::bigint[])
