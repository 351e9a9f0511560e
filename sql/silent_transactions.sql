-- Lists the open transactions that may have enqueued jobs before the bell was armed. Such a transaction commits without
-- ringing the bell. Each transaction that enqueues, even a prepared one, holds the lock RowExclusiveLock on
-- reveille.jobs until it ends.
--
-- Returns one row per transaction: its virtual id.
select distinct pg_locks.virtualtransaction
from pg_locks
where pg_locks.locktype = 'relation'
    and pg_locks.relation = 'reveille.jobs'::regclass::oid
    and pg_locks.database = (select pg_database.oid from pg_database where pg_database.datname = current_database())
    and pg_locks.mode = 'RowExclusiveLock'
    and pg_locks.granted
    and pg_locks.pid is distinct from pg_backend_pid()
