-- Applies the ends of linked jobs to the jobs that wait for them and to their workflows.
--
--   $1 int  the maximum number of ends, of dependencies and of cancellations
--
-- Returns one row: the number of changes. Run this again until the number is 0.
select reveille.apply_linked_ends($1) as changes
