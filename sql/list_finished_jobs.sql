-- Lists finished jobs within their queue's retention, newest first.
--
--   $1 text    the queue; null: any
--   $2 text    the kind; null: any
--   $3 bigint  the maximum number of jobs
--   $4 text    the outcome: completed or cancelled; null: any
--
-- Returns one row per job: its columns as JSON.
select to_jsonb(listed) - 'day' as record
from (
    select finished_jobs.outcome as state, finished_jobs.*
    from reveille.finished_jobs
    where ($1::text is null or queue = $1) and ($2::text is null or kind = $2) and ($4::text is null or outcome = $4)
        and finished_at > now() - coalesce(
            (select retention from reveille.queues where name = finished_jobs.queue), interval '1 day')
    order by id desc
    limit $3
) as listed
