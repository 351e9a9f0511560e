-- Lists all jobs of every state, in the order of their ids. For tests.
select
    id, queue, kind, payload, priority, max_attempts, available_at, created_at,
    extract(epoch from timeout)::double precision as timeout_seconds, unique_key, key, tags, metadata, parent_id
from reveille.jobs
union all
select
    id, queue, kind, payload, priority, max_attempts,
    coalesce(available_at, created_at + coalesce(delay, interval '0')), created_at,
    extract(epoch from timeout)::double precision, null, key, tags, metadata, parent_id
from reveille.blocked_jobs
union all
select
    id, queue, kind, payload, priority, max_attempts, available_at, created_at,
    extract(epoch from timeout)::double precision, unique_key, key, tags, metadata, parent_id
from reveille.dead_jobs
union all
select
    id, queue, kind, payload, priority, max_attempts, available_at, created_at,
    null, null, key, tags, metadata, parent_id
from reveille.finished_jobs
order by id
