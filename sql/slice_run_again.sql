-- The last part of a statement over finished jobs: enqueues a new job like each job of the slice that passes the
-- filter, as sql/run_again.sql does. See sql/slice_of_finished_jobs.sql.
--
-- Returns one row:
--   done         the number of new jobs
--   requested    always 0
--   left_over    always 0
--   passed_over  always empty
--   the columns of reached
, again as (
    insert into reveille.jobs (queue, kind, payload, priority, max_attempts, key, tags, metadata)
    select
        finished.queue, finished.kind, finished.payload, finished.priority, finished.max_attempts, finished.key,
        finished.tags, finished.metadata
    from passing
    cross join lateral (
        select * from reveille.finished_jobs where day = passing.day and id = passing.id limit 1
    ) as finished
    order by finished.id
    returning id
)
select
    (select count(*) from again) as done, 0::bigint as requested, 0::bigint as left_over,
    array[]::bigint[] as passed_over, reached.*
from reached
