-- Reads and locks what can be edited in a waiting or dead job, for the record of an edit.
--
--   $1 bigint  the job's id
--
-- Returns one row with the columns as JSON, and the hash and length of the payload; no row if a worker holds the job,
-- or if no live or dead job has this id. The lock keeps the values from changing before the edit.
with live as materialized (
    select queue, priority, max_attempts, key, timeout, available_at, payload
    from reveille.jobs
    where id = $1 and reserved_by is null
    for update
), dead as materialized (
    select queue, priority, max_attempts, key, timeout, null::timestamptz as available_at, payload
    from reveille.dead_jobs
    where id = $1
    for update
)
select to_jsonb(job) || jsonb_build_object('payload', jsonb_build_object(
    'sha256', encode(sha256(convert_to(job.payload::text, getdatabaseencoding())), 'hex'),
    'bytes', octet_length(job.payload::text)
)) as record
from (select * from live union all select * from dead) as job
limit 1
