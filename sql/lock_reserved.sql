-- Locks the rows of jobs that are to be settled, and passes over rows that other sessions have locked.
--
--   $1 bigint[]       the jobs' ids, ascending
--   $2 bigint[]       the worker that reserved each job
--   $3 int[]          the attempt of each job
--   $4 timestamptz[]  reserved_at of each job; with $1 to $3, the fence
--
-- Returns one row for each job whose reservation stands:
--   id     the job's id
--   taken  true if this transaction has locked the row
--
-- Each job is found by its id, as in sql/settle_finished.sql.
with standing as materialized (
    select id
    from reveille.jobs
    where id = any ($1::bigint[])
        and reserved_by is not distinct from ($2::bigint[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and attempts = ($3::int[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and reserved_at is not distinct from ($4::timestamptz[])[pg_catalog.width_bucket(id, $1::bigint[])]
), taken as materialized (
    select id
    from reveille.jobs
    where id = any ($1::bigint[])
        and reserved_by is not distinct from ($2::bigint[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and attempts = ($3::int[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and reserved_at is not distinct from ($4::timestamptz[])[pg_catalog.width_bucket(id, $1::bigint[])]
    for update skip locked
)
select id, id = any (array(select taken.id from taken)) as taken from standing
