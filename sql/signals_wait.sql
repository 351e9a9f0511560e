-- Whether commits that notify wait for each other: from before its commit until after, each holds this lock, of which a server has
-- one, on no database in particular.
select exists (
    select
    from pg_locks
    where pg_locks.locktype = 'object'
        and pg_locks.classid = 'pg_catalog.pg_database'::regclass::oid
        and pg_locks.objid = 0::oid
        and not pg_locks.granted
) as wait
