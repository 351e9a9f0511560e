-- Takes an advisory lock in this session, as the sign that a worker lives. If the session ends, the lock is gone, and
-- the next heartbeats of the other workers find this.
--
--   $1 bigint  the worker's id
--
-- The lock is shared, since an earlier session of the same worker may still hold it after a lost connection. The
-- worker's row gets this backend's process id, in place of the one that sql/register.sql has noted. From then on only
-- this backend's lock counts, since any session that knows the lock's number can take the lock.
--
-- Returns one row:
--   again  true if nothing was done, since another session has locked the worker's row, such as its own heartbeat
with vouched as (
    update reveille.workers
    set holds_lock = true, backend = pg_backend_pid()
    where id = (select id from reveille.workers where id = $1 for no key update skip locked)
        and pg_try_advisory_lock_shared(id)
    returning id
)
select exists (select from reveille.workers where id = $1) and not exists (select from vouched) as again
