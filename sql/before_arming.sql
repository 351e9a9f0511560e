-- Begins a transaction that arms the bell (sql/arm.sql). The transaction waits at most 100 ms for a lock, since the
-- claimer cannot look for jobs meanwhile. The commit waits for the disk, so that a crash of the server does not silence
-- the bell. It waits for no standby: after a fail-over, a claimer arms its bell anew.
select set_config('lock_timeout', '100ms', true), set_config('synchronous_commit', 'local', true)
