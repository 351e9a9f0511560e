-- Returns the ended attempts of one queue, or of all queues, in equal parts of a time up to now.
--
--   $1 text              the queue; null: all queues
--   $2 double precision  the length of the time in seconds
--   $3 int               the number of parts
--
-- Returns one row as JSON for each part in which an attempt ended: part, from 0 for the oldest; completed, failed, and
-- the times in seconds.
select to_jsonb(parts) as record
from (
    select
        least(floor(extract(epoch from minute - (now() - make_interval(secs => $2))) * $3::int / $2)::int, $3::int - 1)
            as part,
        sum(completed)::bigint as completed, sum(failed)::bigint as failed,
        sum(mean_wait_seconds * (completed + failed)) / nullif(sum(completed + failed), 0) as mean_wait_seconds,
        max(max_wait_seconds) as max_wait_seconds,
        sum(mean_run_seconds * (completed + failed)) / nullif(sum(completed + failed), 0) as mean_run_seconds,
        max(max_run_seconds) as max_run_seconds
    from reveille.throughput
    where ($1::text is null or queue = $1) and minute >= now() - make_interval(secs => $2)
    group by part
) as parts
order by part
