-- What is left to do in a queue.
--
--   $1 text  queue
--
-- ready and delayed are counted up to 10,000. One statement, so that a job that is started meanwhile is counted once. workers: how
-- many living ones work it.
select
    exists (select from reveille.queues where name = $1 and paused_at is not null) as paused,
    (
        select count(*)
        from (
            select from reveille.jobs where queue = $1 and reserved_at is null and available_at <= now() limit 10000
        ) as ready
    ) as ready,
    (select count(*) from reveille.jobs where reserved_at is not null and queue = $1) as running,
    (
        select count(*)
        from (
            select from reveille.jobs where queue = $1 and reserved_at is null and available_at > now() limit 10000
        ) as delayed
    ) as delayed,
    (select count(*) from reveille.worker_status where alive and not stopping and $1 = any (queues)) as workers
