-- Counts the dead jobs of each queue and kind, the kind with the most dead jobs first.
--
--   $1 text[]  the queues; null: all
--   $2 text    the kind; null: all
--   $3 text    the reason; null: all
--   $4 int     the maximum number of queues and kinds
--
-- Returns one row per queue and kind: its dead jobs, and `of_kinds`, the number of all queues and kinds with dead jobs.
select to_jsonb(listed) as record
from (
    select queue, kind, sum(jobs) as jobs, count(*) over () as of_kinds
    from reveille.dead_groups()
    where ($1::text[] is null or queue = any ($1)) and ($2::text is null or kind = $2)
        and ($3::text is null or reason = $3)
    group by queue, kind
    order by jobs desc, queue, kind
    limit $4
) as listed
