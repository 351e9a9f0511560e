-- Lists live jobs, newest first.
--
--   $1 text    the queue; null: any
--   $2 text    the kind; null: any
--   $3 bigint  the maximum number of jobs
--   $4 text    the state: ready, delayed, running, stuck or failing; null: any
--
-- Returns one row per job: its columns as JSON.
--
-- Three parts serve different states and use different indexes. $4 is known when the statement is planned, so only one
-- part remains in the plan.
with chosen as (
    (
        select held.id from reveille.held_jobs() as held
        left join reveille.workers on workers.id = held.worker
        where ($4 = 'running' or $4 = 'stuck' and held.id = any (workers.stuck_jobs))
            and ($1::text is null or held.queue = $1) and ($2::text is null or held.kind = $2)
        order by held.id desc
        limit $3
    )
    union all
    (
        select id from reveille.jobs
        where $4 = 'failing' and failures > 0
            and ($1::text is null or queue = $1) and ($2::text is null or kind = $2)
        order by id desc
        limit $3
    )
    union all
    (
        select id from reveille.jobs
        where (
                $4::text is null
                or $4 in ('ready', 'delayed') and ($4 = 'delayed') = (available_at > now()) and reserved_at is null
            )
            and ($1::text is null or queue = $1) and ($2::text is null or kind = $2)
        order by id desc
        limit $3
    )
)
select to_jsonb(listed) as record
from (
    select
        case
            when reserved_at is not null then 'running'
            when available_at > now() then 'delayed'
            else 'ready'
        end as state,
        jobs.*,
        workers.stuck_since[array_position(workers.stuck_jobs, jobs.id)] as stuck_since
    from reveille.jobs
    left join reveille.workers on workers.id = jobs.reserved_by
    where jobs.id = any (array(select id from chosen))
    order by jobs.id desc
) as listed
