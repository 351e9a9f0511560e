-- Returns everything that `reveille top` shows, from the views only, as one snapshot.
--
-- Returns one row: a JSON object with lists of up to 200 rows, and times in seconds. The wait times and run times
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
), queues as (
    select
        stats.queue, paused, ready, delayed, running, dead, estimated,
        extract(epoch from oldest_ready_age) as oldest_ready_seconds, completed_last_minute, failed_last_minute,
        mean_wait_seconds, max_wait_seconds, mean_run_seconds, max_run_seconds
    from reveille.queue_stats as stats
    left join latency on latency.queue = stats.queue
), sums as (
    select
        count(*) as queues, coalesce(sum(ready), 0) as ready, coalesce(sum(delayed), 0) as delayed,
        coalesce(sum(running), 0) as running, coalesce(sum(dead), 0) as dead,
        coalesce(bool_or(estimated), false) as estimated,
        coalesce(sum(completed_last_minute), 0) as completed_last_minute,
        coalesce(sum(failed_last_minute), 0) as failed_last_minute
    from queues
), busiest as (
    -- Of more than 200 queues, these are the 200 with the most activity.
    select * from queues order by running + completed_last_minute + failed_last_minute desc, ready desc, queue limit 200
), workers as (
    select
        worker, host, pid, queues, running, slots, extract(epoch from now() - started_at) as started_seconds,
        greatest(extract(epoch from now() - last_seen), 0) as last_seen_seconds, alive, stopping, version
    from reveille.worker_status
    where slots > 0
    order by started_at
    limit 200
), running as (
    select id, queue, kind, attempt, worker, host, extract(epoch from running_for) as running_seconds
    from reveille.running_jobs
    order by running_for desc
    limit 200
), failing as (
    select
        id, queue, kind, failures, max_attempts, running, extract(epoch from next_try_at - now()) as next_try_seconds,
        left(last_error, 500) as last_error
    from reveille.failing_jobs
    order by id desc
    limit 200
), dead as (
    select
        queue, kind, reason, jobs, extract(epoch from now() - last_died_at) as last_died_seconds, last_id,
        left(last_error, 500) as last_error
    from reveille.dead_jobs_overview
    order by last_died_at desc
    limit 200
)
select jsonb_build_object(
    'at', now(),
    'sums', (select to_jsonb(sums) from sums),
    'queues', (select coalesce(jsonb_agg(to_jsonb(busiest) order by queue), '[]') from busiest),
    'workers', (select coalesce(jsonb_agg(to_jsonb(workers)), '[]') from workers),
    'running', (select coalesce(jsonb_agg(to_jsonb(running)), '[]') from running),
    'failing', (select coalesce(jsonb_agg(to_jsonb(failing)), '[]') from failing),
    'dead', (select coalesce(jsonb_agg(to_jsonb(dead)), '[]') from dead)
) as record
