-- Reads what links a job with others: its workflow, the jobs that it waits for or has waited for, and those that wait
-- for it or have done so.
--
--   $1 bigint  the job
--   $2 bigint  the maximum number of jobs in each direction
--
-- Returns one row: a JSON object. The queue and the kind of a job are null once its history is gone.
with links as (
    (
        select 'prerequisites' as direction, on_job as job, label, fires_on, state
        from reveille.job_dependencies
        where waiter = $1
        order by label
        limit $2
    )
    union all
    (
        select 'waiters', waiter, label, fires_on, state
        from reveille.job_dependencies
        where on_job = $1
        order by waiter
        limit $2
    )
),
known as (
    select
        links.direction, links.job, links.label, links.fires_on, links.state, members.name, other.queue, other.kind,
        coalesce(other.state, members.state) as job_state
    from links
    left join reveille.workflow_job_status as members on members.job = links.job
    left join lateral (
        (
            select
                queue, kind,
                case
                    when reserved_at is not null then 'running'
                    when available_at > now() then 'delayed'
                    else 'ready'
                end as state
            from reveille.job_list where id = links.job
        )
        union all
        (select queue, kind, 'blocked' from reveille.blocked_jobs_overview where id = links.job)
        union all
        (select queue, kind, 'dead' from reveille.dead_job_list where id = links.job)
        union all
        (select queue, kind, outcome from reveille.finished_job_list where id = links.job)
        limit 1
    ) as other on true
)
select jsonb_build_object(
    'workflow', (
        select jsonb_build_object(
            'id', members.workflow, 'name', workflows.name, 'job_name', members.name, 'job_state', members.state,
            'ended_at', members.ended_at
        )
        from reveille.workflow_job_status as members
        join reveille.workflow_status as workflows on workflows.id = members.workflow
        where members.job = $1
    ),
    'prerequisites', coalesce(
        (select jsonb_agg(to_jsonb(known) order by label) from known where direction = 'prerequisites'), '[]'
    ),
    'waiters', coalesce(
        (select jsonb_agg(to_jsonb(known) order by job) from known where direction = 'waiters'), '[]'
    )
) as record
