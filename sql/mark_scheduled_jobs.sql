-- Sets `schedule_id` of the jobs that a worker has enqueued for a schedule.
--
--   $1 bigint[]  the jobs' ids
--   $2 bigint    the schedule's id
update reveille.jobs set schedule_id = $2 where id = any ($1)
