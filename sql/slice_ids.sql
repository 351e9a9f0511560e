-- The last part of a statement: returns one row with the ids of the jobs of the slice that pass the filter, and the row
-- reached. See sql/slice_of_jobs.sql.
select array(select id from passing order by id) as ids, reached.* from reached
