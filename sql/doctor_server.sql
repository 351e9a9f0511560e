-- The doctor's checks of the server: its version and settings, forgotten sessions, commits that hang, obstacles to
-- vacuum, and the fill of the notification buffer. They need no privilege and none of Reveille's tables. They show no
-- statement of any session.
--
--   $1 double precision  the age in seconds from which a transaction is long (300); twelve times this age is bad
--
-- Returns one row per finding:
--   check    the name of the check
--   state    ok, note or bad
--   finding  the text of the finding
--   advice   the text of the advice; null if all is well
with
patience as (select make_interval(secs => $1) as long, make_interval(secs => 12 * $1) as too_long),
version as (select current_setting('server_version_num')::int / 10000 as major),
sessions as (
    select
        pid, coalesce(usename, '-') as usename, coalesce(nullif(application_name, ''), '-') as application_name, state,
        clock_timestamp() - xact_start as age,
        backend_xmin is not null or backend_xid is not null as holds_horizon,
        -- Without pg_read_all_stats, a user sees little of other users' sessions.
        query = '<insufficient privilege>' as hidden
    from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and backend_type is distinct from 'autovacuum worker'
),
slots as (
    select
        slot_name, active, xmin, greatest(coalesce(age(xmin), 0), coalesce(age(catalog_xmin), 0)) as xids,
        case
            when not pg_is_in_recovery() then pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))
        end as wal
    from pg_replication_slots
    where not temporary
),
-- All commits of the server that notify take one lock (see sql/signals_wait.sql), which belongs to no database.
notifying as (
    select
        pid, granted,
        -- Servers before 14 lack this column.
        clock_timestamp() - (to_jsonb(locks) ->> 'waitstart')::timestamptz as waited
    from pg_locks as locks
    where locktype = 'object' and classid = 'pg_catalog.pg_database'::regclass::oid and objid = 0::oid
),
held_up as (select count(*) as commits, max(waited) as longest from notifying where not granted),
synchronous as (
    -- A commit that waits for a standby shows the time at which its statement began, which may be long before.
    select count(*) as commits, max(clock_timestamp() - query_start) as longest
    from pg_stat_activity
    where wait_event = 'SyncRep'
),
connections as (
    select
        -- Without pg_read_all_stats, a user does not see the type of other users' backends.
        (
            select count(*) from pg_stat_activity
            where datname is not null and coalesce(backend_type, 'client backend') = 'client backend'
        ) as used,
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true), '0')::int as usable
),
found (name, state, finding, advice) as (
    select
        'server', case when major < 14 then 'bad' else 'note' end,
        format('PostgreSQL %s; Reveille is made for 14 to 18', current_setting('server_version')),
        case
            when major < 14 then 'move to a newer server'
            else 'a newer version of Reveille may know this one; run its tests against it before relying on it'
        end
    from version
    where major not between 14 and 18
    union all
    select
        'server', 'bad', 'it is a standby: no session can write or listen',
        'give the primary''s address, or several hosts and target_session_attrs=read-write'
    where pg_is_in_recovery()
    union all
    select
        'connections', case when used > 0.95 * usable then 'bad' else 'note' end,
        format('%s of %s are in use', used, usable),
        'raise max_connections, or have programs share sessions through a pool; a worker takes up to 6, besides those '
        'of its program'
    from connections
    where used > 0.8 * usable
    union all
    select 'settings', rule.state, format('%s is %s', rule.name, rule.value), rule.advice
    from (
        values
            ('fsync', 'off', 'bad', 'set it on: a crash of the machine may lose or corrupt everything'),
            ('full_page_writes', 'off', 'note', 'set it on, unless the file system never tears a page (ZFS)'),
            (
                'autovacuum', 'off', 'bad',
                'set it on: every job leaves dead rows behind, and claims slow down with them'
            ),
            ('track_counts', 'off', 'bad', 'set it on: without it autovacuum does nothing'),
            ('track_activities', 'off', 'note', 'set it on: without it no view shows what holds back vacuum'),
            (
                'synchronous_commit', 'off', 'note',
                'a crash of the server may lose the jobs enqueued just before; set it on where that matters'
            ),
            (
                'default_transaction_read_only', 'on', 'bad',
                'set it off for this database and user: no job can be enqueued or claimed'
            ),
            (
                'session_replication_role', 'replica', 'bad',
                'set it to origin: inserts fire no trigger and wake no worker'
            )
    ) as rule (name, value, state, advice)
    where current_setting(rule.name, true) = rule.value
    union all
    select
        'settings', 'note', concat_ws(' ', rule.name, 'is', settings.reset_val, settings.unit), rule.advice
    from (
        values
            ('statement_timeout', 'workers set their own; statements that enqueue must be quicker than this'),
            (
                'idle_in_transaction_session_timeout',
                'workers set their own; it ends transactions of handlers and producers that pause for longer'
            ),
            (
                'default_transaction_isolation',
                'workers use read committed; enqueuing at another level rings the bell even if no worker sleeps'
            ),
            (
                'transaction_timeout',
                'workers set their own; keep it above the time that transactions of handlers and producers take'
            )
    ) as rule (name, advice)
    join pg_settings as settings on settings.name = rule.name
    -- `reset_val` is the value with which a session begins. It is read because the doctor's own session has changed the
    -- present values of some of these settings.
    where settings.reset_val <> settings.boot_val
    union all
    select
        'settings', 'note',
        format(
            'max_prepared_transactions is %s: a transaction that enqueues cannot be prepared while a worker sleeps on '
            'its queue',
            current_setting('max_prepared_transactions')
        ),
        format(
            'where you prepare transactions: alter role ... in database %I set reveille.bell = off; their jobs start '
            'at the next poll',
            current_database()
        )
    where current_setting('max_prepared_transactions') <> '0'
        and not exists (
            select from pg_db_role_setting
            where setdatabase in (0, (select oid from pg_database where datname = current_database()))
                and 'reveille.bell=off' = any (setconfig)
        )
    union all
    select
        'notifications', case when usage > 0.5 then 'bad' else 'note' end,
        format(
            'the notification buffer is %s %% full; once it is full, commits that notify fail',
            round((100 * usage)::numeric)
        ),
        'end the oldest transaction of a session that listens, in any database of this server: the buffer keeps all '
        'notifications since its start'
    from pg_notification_queue_usage() as usage
    where usage > 0.1
    union all
    select
        'notifications', 'note',
        format(
            'a worker''s listener (pid %s, %s) hangs in a transaction for %s', pid, usename, date_trunc('second', age)
        ),
        format('select pg_terminate_backend(%s); its worker opens another', pid)
    from sessions
    where application_name = 'reveille listener' and state like 'idle in transaction%'
    union all
    select
        'commits', case when longest > interval '10 seconds' then 'bad' else 'note' end,
        format('commits that wait for a synchronous standby: %s, for up to %s', commits, date_trunc('second', longest)),
        format(
            'enqueuing hangs meanwhile; start a standby that synchronous_standby_names (%s) names, or change this '
            'setting and select pg_reload_conf()',
            current_setting('synchronous_standby_names')
        )
    from synchronous
    where longest > interval '1 second'
    union all
    select
        'commits', case when longest > interval '10 seconds' then 'bad' else 'note' end,
        format(
            'commits that notify and wait for the one of pid %s (%s, %s): %s, for up to %s', holder.pid,
            coalesce(usename, '-'), coalesce(nullif(application_name, ''), '-'), commits, date_trunc('second', longest)
        ),
        case
            when wait_event = 'SyncRep' then 'it waits for a synchronous standby: see above'
            else format(
                'see its wait_event in pg_stat_activity: SyncRep stands for a synchronous standby; or select '
                'pg_terminate_backend(%s)', holder.pid
            )
        end
    from held_up, notifying as holder
    left join pg_stat_activity as activity on activity.pid = holder.pid
    where holder.granted and longest > interval '1 second'
    union all
    (
        select
            'horizon', case when holds_horizon and age > too_long then 'bad' else 'note' end,
            format(
                'a transaction is %s old: pid %s, user %s, application %s, %s%s', date_trunc('second', age), pid,
                usename, application_name, state,
                case when holds_horizon then '; dead rows younger than it cannot be vacuumed' end
            ),
            format('end it, or select pg_terminate_backend(%s)', pid)
        from sessions, patience
        where age > long
        order by age desc
        limit 10
    )
    union all
    select
        'horizon', 'note', format('sessions of other users whose transactions may not be read: %s', count(*)),
        format('grant pg_read_all_stats to %I', current_user)
    from sessions
    where hidden
    having count(*) > 0
    union all
    select
        'horizon', case when now() - prepared > too_long then 'bad' else 'note' end,
        format('the prepared transaction %L of %s is %s old', gid, owner, date_trunc('second', now() - prepared)),
        format('commit prepared %1$L, or rollback prepared %1$L', gid)
    from pg_prepared_xacts, patience
    where database = current_database() and now() - prepared > long
    union all
    select
        'horizon', case when not active and xmin is not null and xids > 1000000 then 'bad' else 'note' end,
        format(
            'the replication slot %s is %s%s%s', slot_name, case when active then 'in use' else 'not in use' end,
            case when xids > 0 then format(' and holds back vacuum by %s transactions', xids) end,
            case when wal is not null then format(', keeping %s of WAL', wal) end
        ),
        case
            when active then 'see to its consumer, which lags'
            else format('start its consumer, or select pg_drop_replication_slot(%L)', slot_name)
        end
    from slots
    where not active or xids > 1000000
    union all
    select
        'horizon', 'note',
        format(
            'the standby %s holds back vacuum by %s transactions', coalesce(nullif(application_name, ''), pid::text),
            age(backend_xmin)
        ),
        'end the long query there, or set hot_standby_feedback off there'
    from pg_stat_replication
    where age(backend_xmin) > 1000000
),
well (name, finding) as (
    select 'server', format('PostgreSQL %s', current_setting('server_version'))
    union all select 'connections', format('%s of %s are in use', used, usable) from connections
    union all select 'settings', 'commits are kept, and vacuum can work'
    union all
    select 'notifications', format('the buffer is %s %% full', round((100 * pg_notification_queue_usage())::numeric))
    union all select 'commits', 'no commit waits for a standby or for another commit'
    union all
    select
        'horizon',
        format('no transaction is older than %s, and nothing else holds back vacuum', date_trunc('second', long))
    from patience
)
select name as check, state, finding, advice from found
union all
select name, 'ok', finding, null from well where not exists (select from found where found.name = well.name)
