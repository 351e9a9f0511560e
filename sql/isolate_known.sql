-- Makes dead jobs of jobs that cannot be claimed, although other jobs of their queue can be claimed.
--
--   $1 bigint[]  the jobs' ids
--
-- Returns one row per job:
--   id           the job's id
--   code, error  the SQLSTATE and the message with which a claim of the job fails; null: the job can be claimed by now
--   buried       true if the job is a dead job now
select odd.id, tried.code, tried.error, tried.buried
from pg_catalog.unnest($1::bigint[]) as odd (id)
cross join lateral reveille.isolate_job(odd.id, true) as tried
