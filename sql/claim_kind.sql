-- Reserve for a worker the due job of one kind that comes first. For tests, which work one job at a time; limits are not asked.
--
--   $1 text    kind
--   $2 text[]  queues to look in
--   $3 bigint  worker; one without a row in reveille.workers gets nothing
--
-- The columns are those of claim.sql up to cancel_requested, and the queue.
with first as materialized (
    select jobs.ctid as place
    from reveille.jobs
    where jobs.kind = $1 and jobs.queue = any ($2) and jobs.reserved_at is null and jobs.available_at <= now()
        and exists (select from reveille.workers where workers.id = $3)
        and not exists (select from reveille.queues where queues.name = jobs.queue and queues.paused_at is not null)
    order by jobs.priority, jobs.available_at, jobs.id
    limit 1
    for update of jobs skip locked
)
update reveille.jobs
set reserved_at = now(),
    reserved_by = $3,
    attempts = jobs.attempts + 1,
    unique_key = case when jobs.unique_until = 'started' then null else jobs.unique_key end,
    unique_until = case when jobs.unique_until = 'started' then null else jobs.unique_until end
where jobs.ctid = any (array(select place from first))
returning
    jobs.id, jobs.kind, jobs.payload, jobs.priority, jobs.attempts, jobs.failures, jobs.max_attempts,
    jobs.reserved_at, jobs.available_at, jobs.created_at, jobs.key, jobs.tags, jobs.metadata,
    extract(epoch from jobs.timeout)::double precision as timeout_seconds,
    jobs.cancel_requested_at is not null as cancel_requested, jobs.ctid as place, jobs.queue
