-- Finds the workflow that a job belongs to.
--
--   $1 bigint  the job
--
-- Returns one row: the id and the input of the workflow; no row if the job belongs to none.
select workflows.id, workflows.input
from reveille.workflow_jobs
join reveille.workflows on workflows.id = workflow_jobs.workflow
where workflow_jobs.job = $1
