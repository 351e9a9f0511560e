-- Arms a queue's bell for a worker that is about to sleep: once this is committed, enqueuing rings for the worker. Runs
-- in a transaction that begins with sql/before_arming.sql.
--
--   $1 bigint  worker
--   $2 text    queue
insert into reveille.sleepers (queue, worker) values ($2, $1) on conflict do nothing
