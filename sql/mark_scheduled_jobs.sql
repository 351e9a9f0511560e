-- Notes the schedule of jobs that a worker has enqueued for one.
--
--   $1 bigint[]  jobs
--   $2 bigint    schedule
update reveille.jobs set schedule_id = $2 where id = any ($1)
