-- Lists the waiting jobs for `reveille top`, in the order of their due times.
--
--   $1 text  the queue; null: any
--
-- Returns one row per job, at most 200 ready and 200 delayed jobs: the columns of the view as JSON, and times in
-- seconds.
--
-- The index has the order of due times within each level of each queue. The first 200 jobs of all levels are among the
-- first 200 jobs of those 200 levels whose own first jobs are due earliest, so no other level is read.
with recursive waiting as (
    (select queue from reveille.waiting_jobs where $1::text is null order by queue limit 1)
    union all
    select (
        select next.queue from reveille.waiting_jobs as next
        where next.queue > waiting.queue order by next.queue limit 1
    )
    from waiting
    where waiting.queue is not null
), levels as (
    -- The planner expects ten elements of an array. It would expect more queues of the recursive query, and compile the
    -- statement.
    select known.queue, level.priority
    from unnest(
        case when $1::text is null then array(select queue from waiting where queue is not null) else array[$1] end
    ) as known (queue)
    cross join (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
), ready_levels as (
    select levels.queue, levels.priority
    from levels
    cross join lateral (
        select job.available_at from reveille.waiting_jobs as job
        where job.queue = levels.queue and job.priority = levels.priority and job.available_at <= now()
        order by job.available_at
        limit 1
    ) as first
    order by first.available_at
    limit 200
), delayed_levels as (
    select levels.queue, levels.priority
    from levels
    cross join lateral (
        select job.available_at from reveille.waiting_jobs as job
        where job.queue = levels.queue and job.priority = levels.priority and job.available_at > now()
        order by job.available_at
        limit 1
    ) as first
    order by first.available_at
    limit 200
), ready as (
    select first.id
    from ready_levels
    cross join lateral (
        select job.id, job.available_at from reveille.waiting_jobs as job
        where job.queue = ready_levels.queue and job.priority = ready_levels.priority and job.available_at <= now()
        order by job.available_at, job.id
        limit 200
    ) as first
    order by first.available_at, first.id
    limit 200
), delayed as (
    select first.id
    from delayed_levels
    cross join lateral (
        select job.id, job.available_at from reveille.waiting_jobs as job
        where job.queue = delayed_levels.queue and job.priority = delayed_levels.priority and job.available_at > now()
        order by job.available_at, job.id
        limit 200
    ) as first
    order by first.available_at, first.id
    limit 200
)
select to_jsonb(listed) as record
from (
    select
        job.*,
        -- An infinite due time has no age.
        case when isfinite(available_at) then extract(epoch from available_at - now()) end as due_seconds
    from reveille.waiting_jobs as job
    where id = any (array(select id from ready union all select id from delayed))
    order by job.available_at, job.id
) as listed
