-- Vouch for a worker by a lock that goes with this session: others see at once when the session is gone. Shared, since an earlier
-- session of the worker's that was cut off may hold it still.
--
--   $1 bigint  worker
update reveille.workers set holds_lock = true where id = $1 and pg_try_advisory_lock_shared(id)
