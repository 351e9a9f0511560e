-- Revives one batch of dead jobs. Their ids, attempts and errors stay; their failures start at zero.
--
--   $1 text    the queue; null: any
--   $2 text    the kind; null: any
--   $3 bigint  the maximum number of jobs
--   $4 text    the reason for which the jobs are dead; null: any
--   $5 bigint  the highest id of the previous batch; only jobs with higher ids are revived
--
-- Returns one row:
--   done       the number of revived jobs
--   left_over  the number of jobs that stay dead, since a live job of their kind has their unique key
--   last_id    the highest id of the batch; null: the batch was empty
--
-- If a live job has the id of a dead job, the dead job is revived under a fresh id. An entry that names the old id is
-- added to its errors.
with picked as materialized (
    select * from reveille.dead_jobs
    where ($1::text is null or queue = $1) and ($2::text is null or kind = $2) and ($4::text is null or reason = $4)
        and id > $5
    order by id
    limit $3
    for update skip locked
), named as materialized (
    select
        picked.*,
        case
            when (select jobs.id from reveille.jobs where jobs.id = picked.id) is null then picked.id
            else reveille.fresh_job_id()
        end as new_id
    from picked
), revived as (
    insert into reveille.jobs (
        id, queue, kind, payload, priority, attempts, max_attempts, created_at, unique_key, unique_until, key, timeout,
        tags, metadata, errors, progress, parent_id, schedule_id
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
        progress, parent_id, schedule_id
    from named
    -- Ordered as in sql/enqueue_unique.sql, so that the two statements never deadlock.
    order by kind collate "C", unique_key collate "C"
    on conflict do nothing
    returning id
), gone as (
    delete from reveille.dead_jobs using named, revived where named.new_id = revived.id and dead_jobs.id = named.id
)
select
    (select count(*) from revived) as done,
    (select count(*) from picked) - (select count(*) from revived) as left_over,
    (select max(id) from picked) as last_id
