-- Lists the groups of dead jobs with the same queue, kind and reason, the group with the latest dead job first.
--
--   $1 text[]  the queues; null: all
--   $2 text    the kind; null: all
--   $3 text    the reason; null: all
--
-- Returns one row per group, at most 200: the group, its jobs, the times at which the first and the last one died, and
-- `of_groups` and `of_jobs`, the numbers of all groups and their jobs.
select to_jsonb(listed) as record
from (
    select
        queue, kind, reason, jobs, first_died_at, last_died_at, count(*) over () as of_groups,
        sum(jobs) over () as of_jobs
    from reveille.dead_groups()
    where ($1::text[] is null or queue = any ($1)) and ($2::text is null or kind = $2)
        and ($3::text is null or reason = $3)
    order by last_died_at desc
    limit 200
) as listed
