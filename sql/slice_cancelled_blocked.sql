-- The last part of a statement over blocked jobs: cancels the jobs of the slice that pass the filter, as
-- reveille.cancel does. See sql/slice_of_blocked_jobs.sql.
--
-- Returns one row:
--   done         the number of jobs that were cancelled
--   requested    always 0
--   left_over    always 0
--   passed_over  the ids of the jobs that were not touched, since another session has locked or changed them
--   the columns of reached
--
-- A job whose number of open dependencies has changed still passes the filter, so its row may have another version.
, chosen as materialized (
    select id from reveille.blocked_jobs
    where id = any (array(select id from passing))
    order by id
    for update skip locked
), ended as materialized (
    select reveille.end_blocked(array(select id from chosen), 'cancelled') as jobs
)
select
    ended.jobs::bigint as done, 0::bigint as requested, 0::bigint as left_over,
    array(select id from passing where id not in (select id from chosen)) as passed_over,
    reached.*
from reached
cross join ended
