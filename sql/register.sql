-- Inserts the row of a worker that starts.
--
--   $1 bigint  the worker's id
--   $2 text    the host's name
--   $3 int     the process id on that host
--   $4 text    the version of Reveille
--   $5 text[]  the names of the worker's queues
--   $6 int     the number of slots, all queues together
insert into reveille.workers (id, host, pid, version, queues, slots) values ($1, $2, $3, $4, $5, $6)
