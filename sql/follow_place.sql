-- Notes the place at which a look at new and changed jobs begins.
--
-- Returns one row:
--   now      the time
--   last_id  the highest id of a live job
--   day      today's day of the history, as in reveille.finished_jobs
--   pages    the number of pages of today's partition
select
    clock_timestamp() as now,
    (select coalesce(max(id), 0) from reveille.jobs) as last_id,
    today.day,
    pg_relation_size(format('reveille.finished_jobs_%s', today.day)::regclass)
        / current_setting('block_size')::bigint as pages
from (select (extract(epoch from clock_timestamp())::bigint / 86400 % 32)::smallint as day) as today
