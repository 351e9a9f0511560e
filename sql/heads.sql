-- Where the jobs of a queue that are due and not reserved begin.
--
--   $1 text           queue
--   $2 timestamptz[]  per level, from which place in the order of claims to look: due time
--   $3 bigint[]       and id
--
-- A row for each level that has such a job.
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
