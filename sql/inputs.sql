-- Reads the outcomes and results of the jobs that a job has waited for.
--
--   $1 bigint  the waiting job
--   $2 text    only labels that come after this one
--   $3 int     the maximum number of rows
--   $4 text    the only label; null: all
--
-- Returns the rows of reveille.inputs, and the kind of each of these jobs; null: the kind is no longer known.
select
    inputs.label, inputs.prerequisite, inputs.outcome, inputs.result,
    coalesce(
        (select members.kind from reveille.workflow_jobs as members where members.job = inputs.prerequisite),
        (select finished_jobs.kind from reveille.finished_jobs where finished_jobs.id = inputs.prerequisite limit 1)
    ) as kind
from reveille.inputs($1, $2, $3, $4) as inputs
order by inputs.label
