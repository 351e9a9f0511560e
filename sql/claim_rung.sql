-- Reserve due jobs of a queue whose bell has just rung, for a worker: as sql/claim.sql does, where few are there and none is delayed.
--
--   $1 text    queue
--   $2 bigint  how many at most
--   $3 bigint  worker; one without a row in reveille.workers gets nothing
--
-- One index scan over all levels, in the order of claims, which a lone job waits less for than for a scan a level. It passes over every
-- delayed job of the queue.
--
-- A row a job, as in sql/claim.sql.
with due as materialized (
    select jobs.ctid as place
    from reveille.jobs
    where jobs.queue = $1 and jobs.reserved_at is null and jobs.available_at <= now()
        and exists (select from reveille.workers where workers.id = $3)
        and not exists (select from reveille.queues where queues.name = $1 and (queues.paused_at is not null or queues.limited is not null))
    order by jobs.priority, jobs.available_at, jobs.id
    limit $2
    for update skip locked
)
update reveille.jobs
set reserved_at = now(),
    reserved_by = $3,
    attempts = jobs.attempts + 1,
    unique_key = case when jobs.unique_until = 'started' then null else jobs.unique_key end,
    unique_until = case when jobs.unique_until = 'started' then null else jobs.unique_until end
where jobs.ctid = any (array(select place from due))
returning
    jobs.id, jobs.kind, jobs.payload, jobs.priority, jobs.attempts, jobs.failures, jobs.max_attempts,
    jobs.reserved_at, jobs.available_at, jobs.created_at, jobs.key, jobs.tags, jobs.metadata,
    extract(epoch from jobs.timeout)::double precision as timeout_seconds,
    jobs.cancel_requested_at is not null as cancel_requested, jobs.ctid as place
