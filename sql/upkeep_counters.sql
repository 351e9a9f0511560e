-- Upkeep: sums the counters older than 5 minutes into one row per queue and minute.
--
--   $1 bigint  the maximum number of counters
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of summed counters
with mine as materialized (
    select name from reveille.chores where name = 'counters' for update skip locked
), past as materialized (
    select counters.ctid as place
    from reveille.counters
    where exists (select from mine) and started_at < date_trunc('minute', now() - interval '5 minutes') and worker <> 0
    order by started_at, queue
    limit $1
), old as (
    delete from reveille.counters where ctid = any (array(select place from past)) returning counters.*
), folded as (
    insert into reveille.counters as counters (
        queue, started_at, worker, completed, failed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
    )
    select
        queue, date_trunc('minute', started_at), 0, sum(completed), sum(failed), sum(wait_seconds),
        max(max_wait_seconds), sum(run_seconds), max(max_run_seconds)
    from old
    group by queue, date_trunc('minute', started_at)
    on conflict (queue, started_at, worker) do update
    set completed = counters.completed + excluded.completed,
        failed = counters.failed + excluded.failed,
        wait_seconds = counters.wait_seconds + excluded.wait_seconds,
        max_wait_seconds = greatest(counters.max_wait_seconds, excluded.max_wait_seconds),
        run_seconds = counters.run_seconds + excluded.run_seconds,
        max_run_seconds = greatest(counters.max_run_seconds, excluded.max_run_seconds)
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, (select count(*) from old) as done
