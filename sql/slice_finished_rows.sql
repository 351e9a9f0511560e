-- The last part of a statement over finished jobs: returns one row as JSON for each job of the slice that passes the
-- filter, and the row reached as JSON. See sql/slice_of_finished_jobs.sql.
select to_jsonb(listed) - 'day' as record
from (
    select finished.outcome as state, finished.*
    from passing
    cross join lateral (
        select * from reveille.finished_jobs where day = passing.day and id = passing.id
    ) as finished
) as listed
union all
select to_jsonb(reached) from reached
