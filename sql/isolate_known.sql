-- Make jobs dead that cannot be claimed, while others of their queue can.
--
--   $1 bigint[]  ids
--
-- A row a job: id; code and error: what a claim of it fails with, null if it can be claimed by now; buried: whether it
-- is a dead job.
select odd.id, tried.code, tried.error, tried.buried
from pg_catalog.unnest($1::bigint[]) as odd (id)
cross join lateral reveille.isolate_job(odd.id, true) as tried
