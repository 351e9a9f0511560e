-- Stores a handler's progress if the job's reservation stands and no other session has locked the job's row.
--
--   $1 bigint       the job's id
--   $2 bigint       the worker that reserved the job
--   $3 int          the attempt
--   $4 timestamptz  reserved_at
--   $5 jsonb        the progress
--
-- Returns one row if the reservation stands, else no row. kept: true if the progress was stored; false if another
-- session has locked the job's row.
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
