-- The doctor's checks of the session locks that show that workers live (sql/vouch.sql), and of the upkeep of the
-- history. They need the privilege select on the tables workers and queues.
--
-- Returns one row per finding, with the columns of sql/doctor_server.sql.
with
workers as (
    select * from reveille.workers where slots > 0 and last_seen_at > now() - interval '30 seconds'
),
kept as (
    select ceil(extract(epoch from greatest(max(retention), interval '1 day')) / 86400)::int as days
    from reveille.queues
),
today as (select (extract(epoch from now())::bigint / 86400)::int as day),
history as (
    select age, format('reveille.finished_jobs_%s', (today.day - age + 32) % 32) as name
    from today, kept, generate_series(kept.days + 2, 31) as age
),
found (name, state, finding, advice) as (
    (
        select
            'locks', 'note',
            format(
                'worker %s (%s, pid %s) has no session lock: its crash would be noticed after 30 s instead of 4', id,
                host, pid
            ),
            'let it listen, past any transaction pooler (DatabaseOptions::listen_url, --listen-url)'
        from workers
        -- A worker takes the lock after its listener has received a notification that the worker sent to itself. A
        -- worker that started less than 10 s ago may still be waiting for this.
        where not holds_lock and started_at < now() - interval '10 seconds'
        order by started_at
        limit 10
    )
    union all
    select
        'history', 'note',
        format(
            '%s holds jobs of %s days ago, and no queue keeps jobs for more than %s: upkeep does not run', name, age,
            make_interval(days => kept.days)
        ),
        '`reveille prune` does it once; workers do it each minute if they may truncate'
    from history, kept
    where pg_relation_size(to_regclass(name)) > 0
),
well (name, finding) as (
    select 'locks', format('%s of %s workers hold theirs', count(*) filter (where holds_lock), count(*)) from workers
    union all
    select 'history', format('no finished job is older than the longest retention (%s)', make_interval(days => days))
    from kept
)
select name as check, state, finding, advice from found
union all
select name, 'ok', finding, null from well where not exists (select from found where found.name = well.name)
