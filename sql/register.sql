-- Registers a worker.
--
--   $1 bigint  worker
--   $2 text    host
--   $3 int     process id on that host
--   $4 text    version of the program
--   $5 text[]  queues
--   $6 int     slots, all queues together
insert into reveille.workers (id, host, pid, version, queues, slots) values ($1, $2, $3, $4, $5, $6)
