-- Finds the jobs that reveille.complete_in has completed under these reservations. Ask before any settlement of these
-- reservations was recorded, since a settlement writes the same rows of the history.
--
--   $1 bigint[]  the jobs' ids
--   $2 bigint[]  the worker that reserved each job
--   $3 int[]     the attempt of each job
--
-- Returns one row per job that was completed so: its id, attempt and queue.
select given.id, given.attempt, completed.queue
from unnest($1::bigint[], $2::bigint[], $3::int[]) as given (id, worker, attempt)
cross join lateral (
    select finished_jobs.queue
    from reveille.finished_jobs
    where finished_jobs.id = given.id and finished_jobs.worker = given.worker
        and finished_jobs.attempts = given.attempt and finished_jobs.outcome = 'completed'
    union all
    select ends.queue
    from reveille.ends
    where ends.id = given.id and ends.worker = given.worker and ends.attempt = given.attempt
    limit 1
) as completed
