-- Begins a transaction that arms the bell (sql/arm.sql). The transaction waits at most 100 ms for a lock, since the
-- claimer cannot look for jobs meanwhile. The transaction commits durably, so that a crash of the server does not
-- silence the bell.
select set_config('lock_timeout', '100ms', true), set_config('synchronous_commit', 'on', true)
