-- Finds the first dead job that sql/revive_dead_jobs.sql or sql/purge_dead_jobs.sql would take, to name a job that the
-- server refuses.
--
--   $1 text    queue; null: any
--   $2 text    kind; null: any
--   $3 text    reason; null: any
--   $4 bigint  only ids above this
select id from reveille.dead_jobs
where ($1::text is null or queue = $1) and ($2::text is null or kind = $2) and ($3::text is null or reason = $3)
    and id > $4
order by id
limit 1
