-- Deletes one batch of dead jobs permanently.
--
--   $1 text    the queue; null: any
--   $2 text    the kind; null: any
--   $3 bigint  the maximum number of jobs
--   $4 text    the reason; null: any
--   $5 bigint  the highest id of the previous batch; only jobs with higher ids are deleted
--
-- Returns one row:
--   done       the number of deleted jobs
--   left_over  always 0
--   last_id    the highest id of the batch; null: the batch was empty
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
