-- A worker introduces itself.
--
--   $1 bigint  id       $2 text    host     $3 int  pid
--   $4 text    version  $5 text[]  queues   $6 int  slots
insert into reveille.workers (id, host, pid, version, queues, slots) values ($1, $2, $3, $4, $5, $6)
