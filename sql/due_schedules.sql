-- Lists the schedules whose next tick is due, in the order of these ticks. Lists first the schedules whose next tick no
-- worker has computed yet.
--
--   $1 bigint  the maximum number of schedules
--
-- Returns one row per schedule; if no tick is due, one row whose id is null. Each row also has:
--   due_seconds  the seconds until the first tick that is not due yet; null if there is none
--   looked_at    the time of this query, at which the listed ticks were due
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
