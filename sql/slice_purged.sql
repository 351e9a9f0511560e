-- The last part of a statement over dead jobs: permanently deletes the jobs of the slice that pass the filter. See
-- sql/slice_of_dead_jobs.sql.
--
-- Returns one row:
--   done         the number of deleted jobs
--   requested    always 0
--   left_over    always 0
--   passed_over  the ids of the jobs that were not touched, since another session has locked or changed them
--   the columns of reached
--
-- A job is chosen only if its row still has the version that passed the filter.
, locked as materialized (
    select id, xmin as version from reveille.dead_jobs
    where id = any (array(select id from passing))
    for update skip locked
), gone as (
    delete from reveille.dead_jobs
    where id = any (array(select locked.id from locked join passing using (id, version)))
    returning id, linked
), linked_ends as materialized (
    -- A purge counts as a cancellation for the jobs that wait for the dead job.
    select reveille.note_end(id, 'purged') from gone where linked
)
select
    (select count(*) from gone) as done, 0::bigint as requested, 0::bigint as left_over,
    array(select id from passing where id not in (select id from gone)) as passed_over,
    reached.*
from reached
where (select count(*) from linked_ends) >= 0
