-- Makes jobs dead that cannot be claimed while other jobs of their queue can.
--
--   $1 bigint[]  jobs
--
-- Returns one row per job. id: the job. code and error: why a claim of it fails; null if it can be claimed by now.
-- buried: whether it is a dead job now.
select odd.id, tried.code, tried.error, tried.buried
from pg_catalog.unnest($1::bigint[]) as odd (id)
cross join lateral reveille.isolate_job(odd.id, true) as tried
