-- A worker looks at a queue by itself: its bell need not ring.
--
--   $1 bigint  worker
--   $2 text    queue
delete from reveille.sleepers where queue = $2 and worker = $1
