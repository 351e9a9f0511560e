-- A worker is about to sleep on a queue: from now on its bell rings for it. In a transaction that begins with
-- sql/before_arming.sql.
--
--   $1 bigint  worker
--   $2 text    queue
insert into reveille.sleepers (queue, worker) values ($2, $1) on conflict do nothing
