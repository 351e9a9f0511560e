-- Inserts the row of a worker that starts. If this session belongs to the worker, the statement also takes the lock
-- that shows that the worker lives (sql/vouch.sql), and notes this backend. So a crash is noticed soon even if the
-- worker has just made its first claim. Once the worker's listener has a session, that session takes over.
--
--   $1 bigint   the worker's id
--   $2 text     the host's name
--   $3 int      the process id on that host
--   $4 text     the version of Reveille
--   $5 text[]   the names of the worker's queues
--   $6 int      the number of slots, all queues together
--   $7 text[]   the kinds for which the worker has a handler; null: every kind
--   $8 boolean  true if the worker listens, and this session ends with the worker's process
--   $9 int[]    the number of slots of each queue
insert into reveille.workers (id, host, pid, version, queues, slots, kinds, backend, queue_slots, applies_ends)
values (
    $1, $2, $3, $4, $5, $6, $7,
    case when $8 then case when pg_try_advisory_lock_shared($1) then pg_backend_pid() end end, $9, true
)
