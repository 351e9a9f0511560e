-- Finds the first dead job that sql/revive_dead_jobs.sql or sql/purge_dead_jobs.sql would take. Runs after one of these
-- statements has failed, so that the error can name the job.
--
--   $1 text    the queue; null: any
--   $2 text    the kind; null: any
--   $3 text    the reason; null: any
--   $4 bigint  an id; only jobs with higher ids are considered
--
-- Returns one row with the job's id, or no row.
select id from reveille.dead_jobs
where ($1::text is null or queue = $1) and ($2::text is null or kind = $2) and ($3::text is null or reason = $3)
    and id > $4
order by id
limit 1
