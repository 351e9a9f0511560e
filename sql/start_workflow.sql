-- Enqueues the workflow that is the payload of a job, unless one of its name and unique key has not ended. The workflow
-- has the schedule of that job, if the job has one.
--
--   $1 text     the name
--   $2 jsonb[]  the jobs, as arrays of up to 10,000 jobs
--   $3 text     the unique key; null: none
--   $4 jsonb    the input; null: an empty object
--   $5 bigint   the job that starts the workflow; null: a job that is stored nowhere
--
-- Returns one row: the id of the workflow, and existed, which is true if it existed.
select opened.id, opened.existed
from reveille.open_workflow(
    $1, $3, $4, $5, (select jobs.schedule_id from reveille.jobs where jobs.id operator(pg_catalog.=) $5)
) as opened
where case
        when opened.existed then true
        else pg_catalog.cardinality(array(
                select reveille.add_to_workflow(opened.id, parts.part)::text
                from pg_catalog.unnest($2::jsonb[]) with ordinality as parts (part, place)
                order by parts.place
            )) operator(pg_catalog.>=) 0
            and reveille.seal_workflow(opened.id) is not null
    end
