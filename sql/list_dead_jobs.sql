-- Lists dead jobs, newest first.
--
--   $1 text    the queue; null: any
--   $2 text    the kind; null: any
--   $3 bigint  the maximum number of jobs
--   $4 text    the reason; null: any
--
-- Returns one row per job: its columns as JSON.
select to_jsonb(listed) as record
from (
    select 'dead' as state, dead_jobs.*
    from reveille.dead_jobs
    where ($1::text is null or queue = $1) and ($2::text is null or kind = $2) and ($4::text is null or reason = $4)
    order by id desc
    limit $3
) as listed
