-- Deletes one dead job permanently.
--
--   $1 bigint  the job's id
--
-- Returns one row with the job's id; no row if no dead job has this id.
--
-- For the jobs that wait for the dead job, the purge counts as a cancellation.
with gone as (
    delete from reveille.dead_jobs where id = $1 returning id, linked
), linked_ends as materialized (
    select reveille.note_end(id, 'purged') from gone where linked
)
select id from gone where (select count(*) from linked_ends) >= 0
