-- Checks if notifying commits wait for each other. All notifying commits of the server take the same lock, which
-- belongs to no database. Each holds it from before its start until after its end.
--
-- Returns one row. wait: true if a commit waits for the lock.
select exists (
    select
    from pg_locks
    where pg_locks.locktype = 'object'
        and pg_locks.classid = 'pg_catalog.pg_database'::regclass::oid
        and pg_locks.objid = 0::oid
        and not pg_locks.granted
) as wait
