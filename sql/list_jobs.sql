-- Live jobs, newest first.
--
--   $1 text  queue, or null: any    $2 text  kind, or null: any    $3 bigint  how many at most
--   $4 text  state: ready, delayed, running, stuck or failing, or null: any
select to_jsonb(listed) as record
from (
    select
        case when reserved_at is not null then 'running' when available_at > now() then 'delayed' else 'ready' end as state,
        jobs.*,
        workers.stuck_since[array_position(workers.stuck_jobs, jobs.id)] as stuck_since
    from reveille.jobs
    left join reveille.workers on workers.id = jobs.reserved_by
    where ($1::text is null or queue = $1) and ($2::text is null or kind = $2)
        and case $4::text
            when 'running' then reserved_at is not null
            when 'stuck' then jobs.id = any (workers.stuck_jobs)
            when 'delayed' then reserved_at is null and available_at > now()
            when 'ready' then reserved_at is null and available_at <= now()
            when 'failing' then failures > 0
            else true
        end
    order by jobs.id desc
    limit $3
) as listed
