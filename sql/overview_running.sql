-- Lists the running jobs for `reveille top`, longest running first.
--
--   $1 bigint  the worker that holds the jobs; null: any
--
-- Returns one row per job, at most 200: the columns of the view as JSON, and times in seconds.
select to_jsonb(listed) as record
from (
    select running.*, extract(epoch from running_for) as running_seconds
    from reveille.running_jobs as running
    where $1::bigint is null or worker = $1
    order by running_for desc
    limit 200
) as listed
