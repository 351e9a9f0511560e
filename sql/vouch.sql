-- Vouches for a worker by an advisory lock of this session: once the session is gone, other workers see this at once.
--
--   $1 bigint  the worker's id
--
-- The lock is shared, since an earlier session of the worker that was cut off may still hold it. The worker's row gets
-- this backend's process id. From then on only this backend's lock counts, since any session that knows the lock's
-- number can take it.
update reveille.workers
set holds_lock = true, backend = pg_backend_pid()
where id = (select id from reveille.workers where id = $1 for no key update skip locked)
    and pg_try_advisory_lock_shared(id)
