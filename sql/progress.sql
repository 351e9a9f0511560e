-- Keep what a handler says of its progress, while its reservation stands.
--
--   $1 bigint  id        $2 bigint       worker
--   $3 int     attempts  $4 timestamptz  reserved_at
--   $5 jsonb   progress
update reveille.jobs
set progress = $5
where id = $1 and reserved_by is not distinct from $2 and attempts = $3 and reserved_at is not distinct from $4
returning id
