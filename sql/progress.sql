-- Keep what a handler says of its progress, while its reservation stands; unless another session has locked the job's
-- row.
--
--   $1 bigint  id        $2 bigint       worker
--   $3 int     attempts  $4 timestamptz  reserved_at
--   $5 jsonb   progress
--
-- A row while the reservation stands: whether the progress is kept.
with standing as materialized (
    select id from reveille.jobs
    where id = $1 and reserved_by is not distinct from $2 and attempts = $3 and reserved_at is not distinct from $4
), unlocked as materialized (
    select id from reveille.jobs
    where id = $1 and reserved_by is not distinct from $2 and attempts = $3 and reserved_at is not distinct from $4
    for no key update skip locked
), kept as (
    update reveille.jobs
    set progress = $5
    where id = any (array(select unlocked.id from unlocked))
    returning id
)
select exists (select from kept) as kept from standing
