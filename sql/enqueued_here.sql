-- Lists the waiting and blocked jobs that the current transaction has enqueued or changed. For tests.
--
-- This query lists the visible rows whose `xmin` is in progress, because a statement sees the rows of a transaction in
-- progress only if the statement is part of that transaction. `xmin` has the lower 32 bits of the transaction's id, or
-- of the id of a savepoint in the transaction. The whole id is the one nearest to the current transaction's id.
--
-- A job for which the transaction has enqueued a follower is not listed, although its row was changed.
select
    jobs.id, jobs.queue, jobs.kind, jobs.payload, jobs.priority, jobs.max_attempts, jobs.available_at, jobs.created_at,
    extract(epoch from jobs.timeout)::double precision as timeout_seconds, jobs.unique_key, jobs.key, jobs.tags,
    jobs.metadata, jobs.parent_id
from (
    select
        jobs.xmin as written_by, id, queue, kind, payload, priority, max_attempts, available_at, created_at, timeout,
        unique_key, key, tags, metadata, parent_id
    from reveille.jobs
    where not linked or unique_key is not null or created_at = now()
    union all
    select
        blocked.xmin, id, queue, kind, payload, priority, max_attempts,
        coalesce(available_at, created_at + coalesce(delay, interval '0')), created_at, timeout,
        null, key, tags, metadata, parent_id
    from reveille.blocked_jobs as blocked
    where created_at = now()
) as jobs
cross join (select pg_current_xact_id()::text::bigint as id) as current
cross join lateral (
    select current.id
        + (jobs.written_by::text::bigint - current.id % 4294967296 + 6442450944) % 4294967296 - 2147483648 as id
) as writer
where pg_xact_status(writer.id::text::xid8) = 'in progress'
order by jobs.id
