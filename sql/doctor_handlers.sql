-- The doctor's check of kinds for which workers have no handler. It needs the privilege select on the tables jobs and
-- workers.
--
-- Returns one row per finding, with the columns of sql/doctor_server.sql.
--
-- A job whose kind has no handler in the worker that claims it is due again after 10 s. So this reads two samples of
-- each queue and level: the jobs that have been due longest, and the jobs that will be due within 10 s.
with
-- A worker without kinds has a handler for every kind. `reveille listen` has rows without slots, which are left out.
workers as materialized (
    select id, queues, kinds
    from reveille.workers
    where slots > 0 and last_seen_at > now() - interval '30 seconds' and not stopping and stop_requested_at is null
),
worked as (
    select distinct queue from workers cross join unnest(queues) as queue where kinds is not null
),
sample as (
    select worked.queue, jobs.kind, jobs.id
    from worked
    cross join (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
    cross join lateral (
        (
            select kind, id from reveille.jobs
            where queue = worked.queue and jobs.priority = level.priority and reserved_at is null
                and paused_by is null
                and available_at <= now()
            order by available_at
            limit 1000
        )
        union all
        (
            select kind, id from reveille.jobs
            where queue = worked.queue and jobs.priority = level.priority and reserved_at is null
                and paused_by is null
                and available_at > now() and available_at <= now() + interval '10 seconds'
            order by available_at
            limit 1000
        )
    ) as jobs
),
kinds as (
    select sample.queue, sample.kind, sample.id, of_queue.workers, of_queue.able
    from (
        select queue, kind, min(id) as id
        from sample
        -- Every worker has a handler for this kind. In two parts, since `reveille` before a dot is the schema.
        where kind <> 'reveille' || '.workflow'
        group by queue, kind
    ) as sample
    cross join lateral (
        select count(*) as workers, count(*) filter (where kinds is null or sample.kind = any (kinds)) as able
        from workers
        where sample.queue = any (queues)
    ) as of_queue
),
found (name, state, finding, advice) as (
    (
        select
            'handlers', 'bad',
            format(
                'no worker of the queue %s has a handler for the kind %s, and job %s waits for one', to_json(queue),
                to_json(kind), id
            ),
            'give a worker of the queue a handler for it, or cancel these jobs; workers release each for 10 s at a time'
        from kinds
        where able = 0
        order by queue, kind
        limit 10
    )
    union all
    (
        select
            'handlers', 'note',
            format(
                'of the %s workers of the queue %s, %s have no handler for the kind %s, such as of job %s', workers,
                to_json(queue), workers - able, to_json(kind), id
            ),
            'these workers release its jobs for 10 s at a time: give all workers of a queue the same handlers, or give '
            'the kind a queue of its own'
        from kinds
        where able > 0 and able < workers
        order by queue, kind
        limit 10
    )
)
select name as check, state, finding, advice from found
union all
select 'handlers', 'ok', 'each kind that waits has a handler in each worker of its queue', null
where not exists (select from found)
