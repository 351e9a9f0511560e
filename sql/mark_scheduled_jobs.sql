-- Say of jobs that were enqueued for a schedule by its worker to which schedule they belong.
--
--   $1 bigint[]  jobs    $2 bigint  schedule
update reveille.jobs set schedule_id = $2 where id = any ($1)
