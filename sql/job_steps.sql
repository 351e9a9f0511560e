-- Lists what the handler of a job has recorded, the latest first.
--
--   $1 bigint  the job
--   $2 bigint  the maximum number of rows
--
-- Returns one row as JSON for each step, sleep or wait.
select to_jsonb(recorded) as record
from (
    select * from reveille.job_steps where job = $1 order by recorded_at desc, name desc limit $2
) as recorded
