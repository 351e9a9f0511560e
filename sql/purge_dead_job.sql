-- Delete one dead job for good.
--
--   $1 bigint  id
delete from reveille.dead_jobs where id = $1 returning id
