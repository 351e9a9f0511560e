-- The jobs that wait and that the current transaction has enqueued, or has changed. For tests.
--
-- What a statement sees of a transaction that is in progress can only be its own, so the rows asked for are those whose xmin
-- is in progress: the transaction itself, or a savepoint in it, which has an id of its own. xmin is the lower half of such an
-- id; the whole one is that which lies nearest to the current transaction's.
select
    jobs.id, jobs.queue, jobs.kind, jobs.payload, jobs.priority, jobs.max_attempts, jobs.available_at, jobs.created_at,
    extract(epoch from jobs.timeout)::double precision as timeout_seconds, jobs.unique_key, jobs.key, jobs.tags, jobs.metadata,
    jobs.parent_id
from reveille.jobs
cross join (select pg_current_xact_id()::text::bigint as id) as current
cross join lateral (
    select current.id
        + (jobs.xmin::text::bigint - current.id % 4294967296 + 6442450944) % 4294967296 - 2147483648 as id
) as writer
where pg_xact_status(writer.id::text::xid8) = 'in progress'
order by jobs.id
