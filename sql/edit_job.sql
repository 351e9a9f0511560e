-- Changes a waiting job, or a dead job before it is revived.
--
--   $1 bigint            the job's id
--   $2 jsonb             the new values of queue, priority, max_attempts, key and timeout (in seconds), by column name;
--                        a column that is not in it stays; a key or timeout that is null in it is removed
--   $3 jsonb             the new payload; null: it stays
--   $4 timestamptz       the new due time; null: $5 decides
--   $5 double precision  the new delay in seconds, from now on; null: the due time stays
--
-- Returns one row with the answer: edited (the job waits), edited_dead; or, if nothing was changed, running, dead (a
-- dead job gets no due time), encrypted (the payload is encrypted, and the new one is not), finished or unknown.
--
-- A payload is encrypted if its member reveille_encrypted is a number; see docs/reference/encryption.md.
--
-- The condition on reserved_by fits no index, so the planner finds the job by its id. The trigger ring_moved rings the
-- bell if the job is due sooner or in another queue.
with stored as (
    select payload from reveille.jobs where id = $1 and reserved_by is null
    union all
    select payload from reveille.dead_jobs
    where id = $1 and $4 is null and $5 is null and not exists (select from reveille.jobs where id = $1)
), refused as materialized (
    select from stored
    where jsonb_typeof(payload -> 'reveille_encrypted') = 'number'
        and $3 is not null and jsonb_typeof($3 -> 'reveille_encrypted') is distinct from 'number'
), edited as (
    update reveille.jobs
    set queue = case when $2 ? 'queue' then $2 ->> 'queue' else queue end,
        priority = case when $2 ? 'priority' then ($2 ->> 'priority')::smallint else priority end,
        max_attempts = case when $2 ? 'max_attempts' then ($2 ->> 'max_attempts')::int else max_attempts end,
        key = case when $2 ? 'key' then $2 ->> 'key' else key end,
        timeout = case
            when $2 ? 'timeout' then make_interval(secs => ($2 ->> 'timeout')::double precision)
            else timeout
        end,
        payload = coalesce($3, payload),
        available_at = coalesce($4, now() + make_interval(secs => $5), available_at)
    where id = $1 and reserved_by is null
        and not exists (select from refused)
    returning id
), dead as (
    update reveille.dead_jobs
    set queue = case when $2 ? 'queue' then $2 ->> 'queue' else queue end,
        priority = case when $2 ? 'priority' then ($2 ->> 'priority')::smallint else priority end,
        max_attempts = case when $2 ? 'max_attempts' then ($2 ->> 'max_attempts')::int else max_attempts end,
        key = case when $2 ? 'key' then $2 ->> 'key' else key end,
        timeout = case
            when $2 ? 'timeout' then make_interval(secs => ($2 ->> 'timeout')::double precision)
            else timeout
        end,
        payload = coalesce($3, payload)
    where id = $1 and $4 is null and $5 is null and not exists (select from reveille.jobs where id = $1)
        and not exists (select from refused)
    returning id
)
select case
    when exists (select from edited) then 'edited'
    when exists (select from dead) then 'edited_dead'
    when exists (select from refused) then 'encrypted'
    when exists (select from reveille.jobs where id = $1) then 'running'
    when exists (select from reveille.dead_jobs where id = $1) then 'dead'
    when exists (select from reveille.finished_jobs where id = $1) then 'finished'
    else 'unknown'
end as answer
