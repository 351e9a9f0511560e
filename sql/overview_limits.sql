-- Lists the queues with limits for `reveille top`, in the order of their names.
--
-- Returns one row per queue, at most 200: the columns of the view as JSON, and times in seconds.
select to_jsonb(listed) as record
from (
    select
        limits.*, extract(epoch from rate_period) as rate_period_seconds,
        case when isfinite(rate_used_until) then extract(epoch from rate_used_until - now()) end as rate_used_seconds
    from reveille.queue_limits as limits
    order by queue
    limit 200
) as listed
