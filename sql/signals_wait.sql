-- Checks if notifying commits wait for each other. Each notifying commit holds one lock of the server from before its
-- start until after its end. The lock belongs to no database.
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
