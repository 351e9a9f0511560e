-- Lists the schedules that are due, the longest due first. A schedule whose next tick a worker has yet to compute
-- counts as due.
--
--   $1 bigint  maximum number of schedules
--
-- Returns one row per schedule; if there is none, one row whose id is null. due_seconds: seconds until the next of the
-- other schedules is due; null if there is none. looked_at: the time at which the listed schedules were due.
with due as materialized (
    select
        id, name, through_middleware, cron, (extract(epoch from every) * 1000000.0)::bigint as every_micros, time_zone,
        catch_up, counted_from, next_at
    from reveille.schedules
    where paused_at is null and error is null and coalesce(next_at, '-infinity'::timestamptz) <= now()
    order by coalesce(next_at, '-infinity'::timestamptz)
    limit $1
), later as (
    select extract(epoch from next_at - clock_timestamp())::double precision as due_seconds
    from reveille.schedules
    where paused_at is null and error is null and coalesce(next_at, '-infinity'::timestamptz) > now()
    order by coalesce(next_at, '-infinity'::timestamptz)
    limit 1
)
select due.*, later.due_seconds, now() as looked_at
from (values (1)) as always
left join later on true
left join due on true
