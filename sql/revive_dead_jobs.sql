-- Revive one batch of dead jobs: their id, attempts and errors stay, their failures start at zero. One whose unique key a
-- live job of its kind has stays dead.
--
--   $1 text  queue, or null: any    $2 text  kind, or null: any    $3 bigint  how many at most
--   $4 text  reason, or null: any   $5 bigint  only ids above this, to go through them batch by batch
with picked as materialized (
    select * from reveille.dead_jobs
    where ($1::text is null or queue = $1) and ($2::text is null or kind = $2) and ($4::text is null or reason = $4)
        and id > $5
    order by id
    limit $3
    for update skip locked
), revived as (
    insert into reveille.jobs (
        id, queue, kind, payload, priority, attempts, max_attempts, created_at, unique_key, unique_until, key, timeout, tags,
        metadata, errors, progress, parent_id, schedule_id
    )
    overriding system value
    select
        id, queue, kind, payload, priority, attempts, max_attempts, created_at, unique_key, unique_until, key, timeout, tags,
        metadata, errors, progress, parent_id, schedule_id
    from picked
    -- As in sql/enqueue_unique.sql.
    order by kind collate "C", unique_key collate "C"
    on conflict (kind, unique_key) where unique_key is not null do nothing
    returning id
), gone as (
    delete from reveille.dead_jobs using revived where dead_jobs.id = revived.id
)
select
    (select count(*) from revived) as done,
    (select count(*) from picked) - (select count(*) from revived) as left_over,
    (select max(id) from picked) as last_id
