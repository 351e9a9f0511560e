-- Finds the first due job of each level of a queue.
--
--   $1 text           queue
--   $2 timestamptz[]  low-water mark of each level: due time
--   $3 bigint[]       low-water mark of each level: id
--
-- Returns a row for each level that has such a job.
select level.priority, first.available_at, first.id
from unnest('{0,1,2,3}'::smallint[], $2::timestamptz[], $3::bigint[]) as level (priority, available_at, id)
cross join lateral (
    select jobs.available_at, jobs.id
    from reveille.jobs
    where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
        and (jobs.available_at, jobs.id) >= (level.available_at, level.id) and jobs.available_at <= now()
    order by jobs.available_at, jobs.id
    limit 1
) as first
