-- Lists the jobs of a workflow in the order of their names.
--
--   $1 bigint  the workflow
--   $2 text    only jobs whose names come after this one
--   $3 bigint  the maximum number of jobs
--
-- Returns one row as JSON for each job, with what it waits for.
select to_jsonb(members) as record
from reveille.workflow_job_status as members
where members.workflow = $1 and members.job = any (array(
    select job from reveille.workflow_job_status
    where workflow = $1 and name > $2
    order by workflow, name
    limit $3
))
order by members.name
