-- The schedules that are due, or whose next tick has yet to be reckoned, the longest due first.
--
--   $1 bigint  how many at most
--
-- A row a schedule; one row with null for id if there is none. due_seconds: in how many seconds the next of the others is due;
-- null if there is none. looked_at: what was due was due by this time.
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
