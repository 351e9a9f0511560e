-- Returns the place of the first due job of each level of a queue, at or above the level's low-water mark.
--
--   $1 text           the queue's name
--   $2 timestamptz[]  the low-water mark of each level: due time
--   $3 bigint[]       the low-water mark of each level: id
--
-- Returns one row for each level that has a due job there.
select level.priority, first.available_at, first.id
from unnest('{0,1,2,3}'::smallint[], $2::timestamptz[], $3::bigint[]) as level (priority, available_at, id)
cross join lateral (
    select jobs.available_at, jobs.id
    from reveille.jobs
    where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
        and jobs.paused_by is null
        and (jobs.available_at, jobs.id) >= (level.available_at, level.id) and jobs.available_at <= now()
    order by jobs.available_at, jobs.id
    limit 1
) as first
