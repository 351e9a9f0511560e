-- Vouch for a worker by a lock that goes with this session: others see at once when the session is gone.
--
--   $1 bigint  worker
update reveille.workers set holds_lock = true where id = $1 and pg_try_advisory_lock(id)
