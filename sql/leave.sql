-- A worker is gone, having settled or released what it held.
--
--   $1 bigint  worker
delete from reveille.workers where id = $1
