-- Returns the queues and the sums that `reveille top` shows, from the views only, as one snapshot.
--
-- Returns one row: a JSON object with the sums and up to 200 queues, and times in seconds. The wait times and run times
-- cover the last five minutes.
with latency as (
    select
        queue,
        sum(mean_wait_seconds * (completed + failed)) / nullif(sum(completed + failed), 0) as mean_wait_seconds,
        max(max_wait_seconds) as max_wait_seconds,
        sum(mean_run_seconds * (completed + failed)) / nullif(sum(completed + failed), 0) as mean_run_seconds,
        max(max_run_seconds) as max_run_seconds
    from reveille.throughput
    where minute >= date_trunc('minute', now() - interval '4 minutes')
    group by queue
), served as (
    select distinct unnest(queues) as queue from reveille.worker_status where alive
), queues as (
    select
        stats.queue, served.queue is not null as served, paused, ready, delayed, running, dead, estimated,
        extract(epoch from oldest_ready_age) as oldest_ready_seconds, completed_last_minute, failed_last_minute,
        parked, blocked, mean_wait_seconds, max_wait_seconds, mean_run_seconds, max_run_seconds
    from reveille.queue_stats as stats
    left join latency on latency.queue = stats.queue
    left join served on served.queue = stats.queue
), sums as (
    select
        count(*) as queues, coalesce(sum(ready), 0) as ready, coalesce(sum(delayed), 0) as delayed,
        coalesce(sum(running), 0) as running, coalesce(sum(dead), 0) as dead,
        coalesce(bool_or(estimated), false) as estimated,
        coalesce(sum(completed_last_minute), 0) as completed_last_minute,
        coalesce(sum(failed_last_minute), 0) as failed_last_minute,
        (select count(*) from reveille.worker_status where alive) as workers,
        (select coalesce(sum(slots), 0) from reveille.worker_status where alive) as slots
    from queues
), busiest as (
    -- Of more than 200 queues, these are the 200 with the most activity.
    select * from queues order by running + completed_last_minute + failed_last_minute desc, ready desc, queue limit 200
)
select jsonb_build_object(
    'at', now(),
    'sums', (select to_jsonb(sums) from sums),
    'queues', (select coalesce(jsonb_agg(to_jsonb(busiest) order by queue), '[]') from busiest)
) as record
