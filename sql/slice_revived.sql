-- The last part of a statement over dead jobs: revives the jobs of the slice that pass the filter. Their ids, attempts
-- and errors stay; their failures start at zero. See sql/slice_of_dead_jobs.sql.
--
-- Returns one row:
--   done         the number of revived jobs
--   requested    always 0
--   left_over    the number of jobs that stay dead, since a live job of their kind has their unique key
--   passed_over  the ids of the jobs that were not touched, since another session has locked or changed them
--   the columns of reached
--
-- left_over also counts the jobs whose deaths were acted on: a job that waited for the death was started.
--
-- A job is chosen only if its row still has the version that passed the filter. If a live job has the id of a dead job,
-- the dead job is revived under a fresh id. An entry that names the old id is added to its errors.
, locked as materialized (
    select id, xmin as version from reveille.dead_jobs
    where id = any (array(select id from passing))
    for update skip locked
), picked as materialized (
    select dead_jobs.* from reveille.dead_jobs
    where id = any (array(select locked.id from locked join passing using (id, version)))
        -- The death of a linked job is applied first: only then it is known whether the death was acted on.
        and not (linked and exists (select from reveille.linked_ends where linked_ends.job = dead_jobs.id))
), revivable as materialized (
    select * from picked
    where not linked or not exists (
        select from reveille.dependencies
        where dependencies.on_job = picked.id and dependencies.fires_on = 'dead' and dependencies.state = 'met'
    )
), named as materialized (
    select
        revivable.*,
        case
            when (select jobs.id from reveille.jobs where jobs.id = revivable.id) is null then revivable.id
            else reveille.fresh_job_id()
        end as new_id
    from revivable
), revived as (
    insert into reveille.jobs (
        id, queue, kind, payload, priority, attempts, max_attempts, created_at, unique_key, unique_until, key, timeout,
        tags, metadata, errors, progress, parent_id, schedule_id, linked
    )
    overriding system value
    select
        new_id, queue, kind, payload, priority, attempts, max_attempts, created_at, unique_key, unique_until, key,
        timeout, tags, metadata,
        case
            when new_id = id then errors
            else coalesce(case when jsonb_typeof(errors) = 'array' then errors end, '[]')
                || jsonb_build_object('at', now(), 'error', format('it was dead job %s, whose id a live job has', id))
        end,
        progress, parent_id, schedule_id, linked
    from named
    -- Ordered as in sql/enqueue_unique.sql, so that the two statements never deadlock.
    order by kind collate "C", unique_key collate "C"
    on conflict do nothing
    returning id
), gone as (
    delete from reveille.dead_jobs using named, revived where named.new_id = revived.id and dead_jobs.id = named.id
), noted as materialized (
    select reveille.note_end(named.id, 'revived') from named join revived on revived.id = named.new_id
    where named.linked and named.new_id = named.id
)
select
    (select count(*) from revived) as done, 0::bigint as requested,
    (select count(*) from picked) - (select count(*) from revived) as left_over,
    array(select id from passing where id not in (select id from picked)) as passed_over,
    reached.*
from reached
where (select count(*) from noted) >= 0
