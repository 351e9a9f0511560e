-- Reads the outcomes and results of the jobs that a job has waited for.
--
--   $1 bigint  the waiting job
--   $2 text    only labels that come after this one
--   $3 int     the maximum number of rows
--   $4 text    the only label; null: all
--
-- Returns the rows of reveille.inputs.
select label, prerequisite, outcome, result from reveille.inputs($1, $2, $3, $4)
