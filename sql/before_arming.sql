-- What a transaction that arms the bell begins with. It gives up where something stays locked: its claimer, which waits
-- for it, has to look for jobs. It is durable, so that a crash of the server does not silence the bell.
select set_config('lock_timeout', '100ms', true), set_config('synchronous_commit', 'on', true)
