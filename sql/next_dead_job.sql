-- The first of the dead jobs that sql/revive_dead_jobs.sql and sql/purge_dead_jobs.sql go through, to name one that is
-- refused.
--
--   $1 text  queue, or null: any    $2 text    kind, or null: any
--   $3 text  reason, or null: any   $4 bigint  only ids above this
select id from reveille.dead_jobs
where ($1::text is null or queue = $1) and ($2::text is null or kind = $2) and ($3::text is null or reason = $3) and id > $4
order by id
limit 1
