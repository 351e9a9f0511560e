-- Returns the ended attempts of one queue, or of all queues, in equal parts of a time up to now. A part begins at a
-- multiple of its length since 1970, so the present part is not over.
--
--   $1 text              the queue; null: all queues
--   $2 double precision  the length of the time in seconds
--   $3 int               the number of parts
--
-- Returns one row as JSON for each part in which an attempt ended: part, from 0 for the oldest; starts_at, completed,
-- failed, and the times in seconds.
with part as (
    select
        make_interval(secs => $2 / $3::int) as length,
        date_bin(make_interval(secs => $2 / $3::int), now(), 'epoch') - make_interval(secs => $2 - $2 / $3::int)
            as first
)
select to_jsonb(parts) || jsonb_build_object(
    'part', round(extract(epoch from starts_at - first) / extract(epoch from length))
) as record
from part
cross join lateral (
    select
        date_bin(part.length, minute, 'epoch') as starts_at,
        sum(completed)::bigint as completed, sum(failed)::bigint as failed,
        sum(mean_wait_seconds * (completed + failed)) / nullif(sum(completed + failed), 0) as mean_wait_seconds,
        max(max_wait_seconds) as max_wait_seconds,
        sum(mean_run_seconds * (completed + failed)) / nullif(sum(completed + failed), 0) as mean_run_seconds,
        max(max_run_seconds) as max_run_seconds
    from reveille.throughput
    where ($1::text is null or queue = $1) and minute >= part.first
    group by 1
) as parts
where starts_at <= now()
order by starts_at
