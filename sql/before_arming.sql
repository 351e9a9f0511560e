-- Begins a transaction that arms the bell (sql/arm.sql). Waits at most 100 ms for a lock, since the claimer that waits
-- for this has to look for jobs. Commits durably, so that a crash of the server does not silence the bell.
select set_config('lock_timeout', '100ms', true), set_config('synchronous_commit', 'on', true)
