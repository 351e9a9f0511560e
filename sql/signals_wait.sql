-- Tells whether commits that notify wait for each other. Each such commit holds this lock from before its start until
-- after its end. The server has one such lock, which belongs to no database.
select exists (
    select
    from pg_locks
    where pg_locks.locktype = 'object'
        and pg_locks.classid = 'pg_catalog.pg_database'::regclass::oid
        and pg_locks.objid = 0::oid
        and not pg_locks.granted
) as wait
