-- Lists the open transactions that may have enqueued before the bell was armed, and so will commit without ringing it.
-- Each holds this lock on the table until it ends. Prepared transactions do too.
select distinct pg_locks.virtualtransaction
from pg_locks
where pg_locks.locktype = 'relation'
    and pg_locks.relation = 'reveille.jobs'::regclass::oid
    and pg_locks.database = (select pg_database.oid from pg_database where pg_database.datname = current_database())
    and pg_locks.mode = 'RowExclusiveLock'
    and pg_locks.granted
    and pg_locks.pid is distinct from pg_backend_pid()
