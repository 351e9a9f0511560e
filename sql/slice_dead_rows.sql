-- The last part of a statement over dead jobs: returns one row as JSON for each job of the slice that passes the
-- filter, and the row reached as JSON. See sql/slice_of_dead_jobs.sql.
select to_jsonb(listed) as record
from (
    select 'dead' as state, dead_jobs.* from reveille.dead_jobs where id = any (array(select id from passing))
) as listed
union all
select to_jsonb(reached) from reached
