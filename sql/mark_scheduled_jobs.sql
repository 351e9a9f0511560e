-- Notes the schedule for which a worker has enqueued jobs.
--
--   $1 bigint[]  the jobs' ids
--   $2 bigint    the schedule's id
update reveille.jobs set schedule_id = $2 where id = any ($1)
