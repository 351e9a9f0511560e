-- Revives the dead jobs of a workflow.
--
--   $1 bigint   the workflow
--   $2 boolean  whether to revive even jobs whose deaths were acted on
--
-- Returns one row for each dead job with its name, its id and the answer. Without a dead job, returns one row without a
-- job. In each row, is_known is true if the workflow exists.
select
    exists (select from reveille.workflow_status where workflow_status.id = $1) as is_known,
    retried.name, retried.job, retried.answer
from (values (true)) as always (one)
left join reveille.retry_workflow($1, $2) as retried on true
