-- Arms a queue's bell for a worker that is about to sleep: once this transaction is committed, an enqueue in the queue
-- rings for the worker. The transaction begins with sql/before_arming.sql.
--
--   $1 bigint  the worker's id
--   $2 text    the queue's name
insert into reveille.sleepers (queue, worker) values ($2, $1) on conflict do nothing
