-- The last part of a statement over live jobs: makes the delayed jobs of the slice that pass the filter due now, as
-- reveille.retry does. See sql/slice_of_jobs.sql.
--
-- Returns one row:
--   done         the number of jobs that were made due
--   requested    always 0
--   left_over    always 0
--   passed_over  the ids of the jobs that were not touched, since another session has locked or changed them
--   the columns of reached
--
-- A job is chosen only if its row still has the version that passed the filter. The conditions on reserved_by fit no
-- index, so the planner finds the jobs by their ids.
, locked as materialized (
    select id, xmin as version from reveille.jobs
    where id = any (array(select id from passing))
    for update skip locked
), chosen as materialized (
    select locked.id from locked join passing using (id, version)
), due as (
    update reveille.jobs set available_at = now()
    where id = any (array(select id from chosen)) and reserved_by is null and available_at > now()
    returning id, queue
), told as materialized (
    select reveille.ring(array(select distinct queue from due))
)
select
    (select count(*) from due) as done, 0::bigint as requested, 0::bigint as left_over,
    array(select id from passing where id not in (select id from chosen)) as passed_over,
    reached.*
from reached
where (select count(*) from told) > 0
