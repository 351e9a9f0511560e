-- Vouches for a worker by an advisory lock of this session: other workers see at once when the session is gone.
--
--   $1 bigint  worker
--
-- The lock is shared, since an earlier session of the worker that was cut off may still hold it. From here on only this
-- backend's lock counts, since any session can take a lock whose name it knows.
update reveille.workers
set holds_lock = true, backend = pg_backend_pid()
where id = (select id from reveille.workers where id = $1 for no key update skip locked)
    and pg_try_advisory_lock_shared(id)
