-- Lists the schedules for `reveille top`, in the order of their names.
--
-- Returns one row per schedule, at most 200: the columns of the view as JSON, and times in seconds.
select to_jsonb(listed) as record
from (
    select
        status.*,
        case when isfinite(next_at) then extract(epoch from next_at - now()) end as next_seconds,
        case when isfinite(last_at) then extract(epoch from now() - last_at) end as last_seconds
    from reveille.schedule_status as status
    order by name
    limit 200
) as listed
