-- Lists the open transactions that may be claims. A claim among them may have begun before a queue got limits, and so
-- may not see these limits.
--
-- Returns one row per transaction: its virtual id, and the process id of its backend (null: a prepared transaction).
--
-- A claim locks the tables reveille.jobs and reveille.workers before it takes its snapshot. It holds both locks until
-- other sessions can see its reservations. A transaction that only enqueues or settles does not lock reveille.workers.
select pg_locks.virtualtransaction as transaction, max(pg_locks.pid) as backend
from pg_locks
where pg_locks.locktype = 'relation'
    and pg_locks.database = (select pg_database.oid from pg_database where pg_database.datname = current_database())
    and (
        pg_locks.relation = 'reveille.jobs'::regclass::oid and pg_locks.mode = 'RowExclusiveLock'
        or pg_locks.relation = 'reveille.workers'::regclass::oid and pg_locks.mode = 'AccessShareLock'
    )
    and pg_locks.granted
    and pg_locks.pid is distinct from pg_backend_pid()
group by pg_locks.virtualtransaction
having pg_catalog.count(distinct pg_locks.relation) = 2
