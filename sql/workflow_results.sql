-- Reads the results of jobs of workflows.
--
--   $1 bigint[]  the jobs
--   $2 bigint    the largest size of a result in bytes; a larger one is null
--
-- Returns one row as JSON for each job that has a result. The first comparison spares the server from reading results
-- that are large even when compressed.
select jsonb_build_object('job', job, 'result', case
    when pg_column_size(result) <= $2 and octet_length(result::text) <= $2 then result
end) as record
from reveille.workflow_jobs
where job = any ($1) and result is not null
