-- Upkeep: empty the partitions of the history that are past every retention; fold the counters older than 5 minutes into
-- a row a queue and minute, and forget those older than 7 days; forget rates that are paid for; give up the unique keys whose
-- period is over. One worker at a time; nobody waits.
with mine as materialized (
    select pg_try_advisory_xact_lock(hashtextextended('reveille.prune', 0)) as granted
), old as (
    delete from reveille.counters
    using mine
    where mine.granted and started_at < date_trunc('minute', now() - interval '5 minutes') and worker <> 0
    returning counters.*
), forgotten as (
    -- Put so that no other index fits than the one by time.
    delete from reveille.counters
    using mine
    where mine.granted and started_at < now() - interval '7 days' and worker is not distinct from 0
), paid as (
    delete from reveille.rates
    using mine
    where mine.granted and next_at < now() - interval '1 minute'
), folded as (
    insert into reveille.counters as counters (
        queue, started_at, worker, completed, failed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
    )
    select
        queue, date_trunc('minute', started_at), 0, sum(completed), sum(failed), sum(wait_seconds), max(max_wait_seconds),
        sum(run_seconds), max(max_run_seconds)
    from old
    group by queue, date_trunc('minute', started_at)
    on conflict (queue, started_at, worker) do update
    set completed = counters.completed + excluded.completed,
        failed = counters.failed + excluded.failed,
        wait_seconds = counters.wait_seconds + excluded.wait_seconds,
        max_wait_seconds = greatest(counters.max_wait_seconds, excluded.max_wait_seconds),
        run_seconds = counters.run_seconds + excluded.run_seconds,
        max_run_seconds = greatest(counters.max_run_seconds, excluded.max_run_seconds)
), past as materialized (
    select held.ctid as place
    from reveille.unique_periods as held, mine
    where mine.granted and held.ends_at <= now()
    for update of held skip locked
), given_up as (
    delete from reveille.unique_periods
    where ctid = any (array(select place from past))
)
select case when granted then reveille.truncate_finished_jobs() end as truncated from mine
