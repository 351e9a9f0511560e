-- Delete one batch of dead jobs for good.
--
--   $1 text  queue, or null: any    $2 text  kind, or null: any    $3 bigint  how many at most
--   $4 text  reason, or null: any   $5 bigint  only ids above this, to go through them batch by batch
with picked as materialized (
    select id from reveille.dead_jobs
    where ($1::text is null or queue = $1) and ($2::text is null or kind = $2) and ($4::text is null or reason = $4)
        and id > $5
    order by id
    limit $3
    for update skip locked
), gone as (
    delete from reveille.dead_jobs using picked where dead_jobs.id = picked.id returning dead_jobs.id
)
select (select count(*) from gone) as done, 0::bigint as left_over, (select max(id) from picked) as last_id
