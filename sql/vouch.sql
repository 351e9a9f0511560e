-- Vouch for a worker by a lock that goes with this session: others see at once when the session is gone. Shared, since
-- an earlier session of the worker's that was cut off may hold it still. Only this backend's lock counts from here on:
-- the lock's name is no secret.
--
--   $1 bigint  worker
update reveille.workers
set holds_lock = true, backend = pg_backend_pid()
where id = (select id from reveille.workers where id = $1 for no key update skip locked)
    and pg_try_advisory_lock_shared(id)
