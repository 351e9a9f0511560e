-- Parks jobs that a claim has met and that a pause covers, so that later claims leave them out.
--
--   $1 bigint[]  the ids of the jobs
--
-- Returns one row for each parked job.
with covered as materialized (
    select id from reveille.jobs
    where id = any ($1::bigint[]) and reserved_by is null and paused_by is null
        and reveille.pause_of(queue, kind, key) is not null
    for update skip locked
)
update reveille.jobs
set paused_by = reveille.pause_of(jobs.queue, jobs.kind, jobs.key)
where jobs.id = any (array(select id from covered))
returning jobs.id
