-- The doctor's checks of the work, in the views: workers, jobs that have waited long, jobs without a living worker,
-- stuck jobs, and schedules that do not fire. They need the privilege select on the views only.
--
-- Returns one row per finding, with the columns of sql/doctor_server.sql.
with
-- `reveille listen` has rows without slots, which are left out.
workers as (
    select *, now() - last_seen as silence from reveille.worker_status where slots > 0
),
ready as materialized (
    select queue, paused, ready, estimated, oldest_ready_age as age from reveille.queue_stats where ready > 0
),
waiting as (
    select
        *,
        exists (select from workers where alive and ready.queue = any (queues)) as served,
        exists (select from reveille.queue_limits as limits where limits.queue = ready.queue) as limited,
        row_number() over (order by paused, age desc, queue) as place,
        count(*) over () as queues
    from ready
    where age > interval '1 minute'
),
held as (
    select id, worker, running_for
    from reveille.running_jobs as running
    where running_for > interval '1 minute'
        and not exists (
            select from reveille.worker_status as status
            where status.worker = running.worker and status.last_seen > now() - interval '1 minute'
        )
),
schedules as materialized (
    select *, next_at < now() - interval '1 minute' as late from reveille.schedule_status where not paused
),
found (name, state, finding, advice) as (
    select
        'workers', 'bad', format('no worker is alive while jobs are ready (queues: %s)', count(*)),
        'start your program''s worker, or reveille work'
    from ready
    where not paused and not exists (select from workers where alive)
    having count(*) > 0
    union all
    select
        'workers', 'note', 'no worker is alive; no job waits for one', 'start your program''s worker, or reveille work'
    where not exists (select from workers where alive) and not exists (select from ready where not paused)
    union all
    (
        select
            'workers', 'note',
            format('worker %s (%s, pid %s) has been silent for %s', worker, host, pid, date_trunc('second', silence)),
            'a living worker takes over its jobs and deletes its row; if none lives, start one'
        from workers
        where not alive
        order by silence
        limit 10
    )
    union all
    select
        'waiting', case when age > interval '10 minutes' and not paused then 'bad' else 'note' end,
        format(
            'queue %s has %s%s ready, the oldest for %s%s', queue, case when estimated then 'about ' end, ready,
            date_trunc('second', age),
            case when paused then '; it is paused' when not served then '; no living worker works it' end
        ),
        case
            when paused then format('reveille resume %s', to_json(queue))
            when not served
            then format(
                'start a worker for it: reveille work --queue %1$s, or .queue(%1$s, 8) in your program', to_json(queue)
            )
            when limited
            then 'see `reveille queue limits`: its limits may hold its jobs back; else give it more slots or workers'
            else 'give it more slots or workers; `reveille jobs --state running` shows the jobs that run'
        end
    from waiting
    where place <= 10
    union all
    select
        'waiting', case when bool_or(age > interval '10 minutes' and not paused) then 'bad' else 'note' end,
        format('further queues with jobs that have been ready for more than a minute: %s', count(*)),
        'see `reveille status`'
    from waiting
    where place > 10
    having count(*) > 0
    union all
    (
        select
            'waiting', 'note',
            format(
                'the pause of %s began %s ago; jobs that it keeps parked: %s',
                concat_ws(
                    ' with ', 'kind ' || to_json(kind)::text, 'key ' || to_json(key)::text
                ) || ' in ' || coalesce('the queue ' || to_json(queue)::text, 'all queues'),
                date_trunc('hour', now() - paused_at), parked
            ),
            concat_ws(
                ' ', 'if it is no longer wanted: reveille resume', to_json(queue)::text,
                '--kind ' || to_json(kind)::text, '--key ' || to_json(key)::text
            )
        from reveille.pause_status
        where id is not null and paused_at < now() - interval '1 day'
        order by paused_at
        limit 10
    )
    union all
    select
        'reserved', 'bad',
        format(
            'jobs held by workers that are gone: %s, for up to %s, job %s among them', count(*),
            date_trunc('second', max(running_for)), min(id)
        ),
        case
            when exists (select from workers where alive)
            then 'the living workers should have rescued them: see their logs for a failing rescue'
            else 'start a worker: it rescues them'
        end
    from held
    having count(*) > 0
    union all
    select
        'stuck', case when max(now() - stuck_since) > interval '1 minute' then 'bad' else 'note' end,
        format(
            'jobs that do not stop though they were asked to: %s, for up to %s, job %s among them', count(*),
            date_trunc('second', max(now() - stuck_since)), min(id)
        ),
        'each keeps its slot: `reveille jobs --state stuck` shows them; let their handlers watch for cancellation and '
        'block no thread'
    from reveille.running_jobs
    where stuck_since is not null
    having count(*) > 0
    union all
    (
        select
            'schedules', 'bad', format('schedule %s: %s', to_json(name), error),
            'correct it by `reveille schedule add` under the same name, or remove it by `reveille schedule remove`'
        from schedules
        where error is not null
        order by name
        limit 10
    )
    union all
    select
        'schedules', 'bad',
        format(
            'schedules that should have fired more than a minute ago: %s, %s among them', count(*), to_json(min(name))
        ),
        'start a worker that was built with the feature schedules, such as reveille work, and see its log'
    from schedules
    where late
    having count(*) > 0
    union all
    select
        'schedules', 'note',
        format(
            'schedules that no living worker declares any more: %s, %s among them', count(*), to_json(min(name))
        ),
        'they still fire; remove them if that is not wanted: reveille schedule remove'
    from schedules
    where stale
    having count(*) > 0
),
well (name, finding) as (
    select 'workers', format('%s alive with %s slots', count(*), sum(slots)) from workers where alive
    union all select 'waiting', 'no job has been ready for more than a minute'
    union all select 'reserved', 'every job that runs has a living worker'
    union all select 'stuck', 'every job that was asked to stop has stopped'
    union all select 'schedules', format('%s run as they should', count(*)) from schedules
)
select name as check, state, finding, advice from found
union all
select name, 'ok', finding, null from well where not exists (select from found where found.name = well.name)
