-- The last part of a statement over live jobs: changes the waiting jobs of the slice that pass the filter, as
-- sql/edit_job.sql does. See sql/slice_of_jobs.sql.
--
--   $23 jsonb             the new values of queue, priority, max_attempts, key and timeout (in seconds), by column
--                         name; a column that is not in it stays; a key or timeout that is null in it is removed
--   $24 jsonb             the new payload; null: it stays
--   $25 timestamptz       the new due time; null: $26 decides
--   $26 double precision  the new delay in seconds, from now on; null: the due time stays
--
-- Returns one row:
--   done         the number of jobs that were changed
--   requested    always 0
--   left_over    the number of jobs that were left, since their payloads are encrypted, and the new one is not
--   passed_over  the ids of the jobs that were not touched, since another session has locked or changed them
--   the columns of reached
--
-- A job is chosen only if its row still has the version that passed the filter. The condition on reserved_by fits no
-- index, so the planner finds the jobs by their ids. The trigger ring_moved rings the bell for the queues in which jobs
-- are due sooner or new.
, locked as materialized (
    select id, xmin as version from reveille.jobs
    where id = any (array(select id from passing))
    for update skip locked
), chosen as materialized (
    select locked.id from locked join passing using (id, version)
), encrypted as materialized (
    select id from reveille.jobs
    where id = any (array(select id from chosen)) and jsonb_typeof(payload -> 'reveille_encrypted') = 'number'
        and $24 is not null and jsonb_typeof($24 -> 'reveille_encrypted') is distinct from 'number'
), edited as (
    update reveille.jobs
    set queue = case when $23 ? 'queue' then $23 ->> 'queue' else queue end,
        priority = case when $23 ? 'priority' then ($23 ->> 'priority')::smallint else priority end,
        max_attempts = case when $23 ? 'max_attempts' then ($23 ->> 'max_attempts')::int else max_attempts end,
        key = case when $23 ? 'key' then $23 ->> 'key' else key end,
        timeout = case
            when $23 ? 'timeout' then make_interval(secs => ($23 ->> 'timeout')::double precision)
            else timeout
        end,
        payload = coalesce($24, payload),
        available_at = coalesce($25, now() + make_interval(secs => $26), available_at)
    where id = any (array(select id from chosen except select id from encrypted)) and reserved_by is null
    returning id
)
select
    (select count(*) from edited) as done, 0::bigint as requested, (select count(*) from encrypted) as left_over,
    array(select id from passing where id not in (select id from chosen)) as passed_over,
    reached.*
from reached
