-- The doctor's checks of Reveille's tables, in the catalogue: indexes, triggers, partitions, dead rows, and the current
-- user's privileges. They need no privilege and read no row of these tables.
--
-- Returns one row per finding, with the columns of sql/doctor_server.sql.
with
home as (select oid, nspname from pg_namespace where nspname || '.' = 'reveille.'),
relations as (
    select
        pg_class.oid, relname, relkind, relispartition, relrowsecurity, relforcerowsecurity, reloptions,
        pg_get_expr(relpartbound, pg_class.oid) as bound
    from pg_class
    join home on home.oid = relnamespace
),
-- Each index of the migrations, with the statement that creates it anew.
expected (name, made_by) as (
    values
        ('jobs_pkey', 'alter table reveille.jobs add primary key (id)'),
        (
            'jobs_claim',
            'create index concurrently jobs_claim on reveille.jobs (queue, priority, available_at, id) '
            'where reserved_at is null and paused_by is null'
        ),
        (
            'jobs_reserved',
            'create index concurrently jobs_reserved on reveille.jobs (reserved_by) where reserved_at is not null'
        ),
        (
            'jobs_limited',
            'create index concurrently jobs_limited on reveille.jobs (queue, key) '
            'where limited and reserved_at is not null'
        ),
        (
            'jobs_turn',
            'create index concurrently jobs_turn on reveille.jobs (queue, key, priority, available_at, id) '
            'where reserved_at is null and paused_by is null and key is not null'
        ),
        ('jobs_order', 'create index concurrently jobs_order on reveille.jobs (queue, key, id) where key is not null'),
        (
            'jobs_parked',
            'create index concurrently jobs_parked on reveille.jobs (queue, paused_by, id) where paused_by is not null'
        ),
        ('pauses_pkey', 'alter table reveille.pauses add primary key (id)'),
        (
            'pauses_covered',
            'create unique index concurrently pauses_covered on reveille.pauses '
            '((coalesce(queue, '''')), (coalesce(key, '''')), (coalesce(kind, '''')))'
        ),
        ('jobs_failing', 'create index concurrently jobs_failing on reveille.jobs (id) where failures > 0'),
        (
            'jobs_unique',
            'create unique index concurrently jobs_unique on reveille.jobs (kind, unique_key) '
            'where unique_key is not null'
        ),
        ('unique_periods_pkey', 'alter table reveille.unique_periods add primary key (kind, unique_key)'),
        (
            'unique_periods_ends_at',
            'create index concurrently unique_periods_ends_at on reveille.unique_periods (ends_at)'
        ),
        ('dead_jobs_pkey', 'alter table reveille.dead_jobs add primary key (id)'),
        (
            'dead_jobs_by_kind',
            'create index concurrently dead_jobs_by_kind on reveille.dead_jobs (queue, kind, reason, finished_at)'
        ),
        ('finished_jobs_id', 'create index finished_jobs_id on reveille.finished_jobs (id)'),
        ('ends_id', 'create index concurrently ends_id on reveille.ends (id)'),
        ('ends_ended_at', 'create index concurrently ends_ended_at on reveille.ends (ended_at)'),
        ('queues_pkey', 'alter table reveille.queues add primary key (name)'),
        ('workers_pkey', 'alter table reveille.workers add primary key (id)'),
        ('passed_over_pkey', 'alter table reveille.passed_over add primary key (id)'),
        ('limits_pkey', 'alter table reveille.limits add primary key (queue)'),
        ('rates_pkey', 'alter table reveille.rates add primary key (queue, key)'),
        ('sleepers_pkey', 'alter table reveille.sleepers add primary key (queue, worker)'),
        ('counters_pkey', 'alter table reveille.counters add primary key (queue, started_at, worker)'),
        ('counters_started_at', 'create index concurrently counters_started_at on reveille.counters (started_at)'),
        (
            'counters_by_workers',
            'create index concurrently counters_by_workers on reveille.counters (started_at, queue) where worker <> 0'
        ),
        ('kind_counters_pkey', 'alter table reveille.kind_counters add primary key (queue, kind, started_at)'),
        (
            'kind_counters_started_at',
            'create index concurrently kind_counters_started_at on reveille.kind_counters (started_at)'
        ),
        ('steps_pkey', 'alter table reveille.steps add primary key (job, name)'),
        ('waits_pkey', 'alter table reveille.waits add primary key (job, event)'),
        (
            'waits_for_ends',
            'create index concurrently waits_for_ends on reveille.waits (event) '
            'where starts_with(event, ''reveille:end:'')'
        ),
        ('waits_event', 'create index concurrently waits_event on reveille.waits (event)'),
        (
            'waits_unseen',
            'create index concurrently waits_unseen on reveille.waits (job, event) where not seen'
        ),
        ('events_pkey', 'alter table reveille.events add primary key (name)'),
        ('events_until', 'create index concurrently events_until on reveille.events (until)'),
        ('events_unseen', 'create index concurrently events_unseen on reveille.events (name) where not seen'),
        ('chores_pkey', 'alter table reveille.chores add primary key (name)'),
        ('actions_pkey', 'alter table reveille.actions add primary key (id)'),
        (
            'actions_by_target',
            'create index concurrently actions_by_target on reveille.actions (target, id) '
            'where not (target ? ''filter'')'
        ),
        (
            'actions_by_request',
            'create unique index concurrently actions_by_request on reveille.actions (request) '
            'where request is not null'
        ),
        ('workflows_pkey', 'alter table reveille.workflows add primary key (id)'),
        (
            'workflows_unique',
            'create unique index concurrently workflows_unique on reveille.workflows (name, unique_key) '
            'where holds_key'
        ),
        (
            'workflows_finished_at',
            'create index concurrently workflows_finished_at on reveille.workflows (finished_at) '
            'where finished_at is not null'
        ),
        (
            'workflows_unfinished',
            'create index concurrently workflows_unfinished on reveille.workflows (id) where finished_at is null'
        ),
        ('workflows_by_name', 'create index concurrently workflows_by_name on reveille.workflows (name, id)'),
        ('workflows_by_state', 'create index concurrently workflows_by_state on reveille.workflows (state, id)'),
        ('workflow_jobs_pkey', 'alter table reveille.workflow_jobs add primary key (job)'),
        (
            'workflow_jobs_by_name',
            'create unique index concurrently workflow_jobs_by_name on reveille.workflow_jobs (workflow, name)'
        ),
        ('blocked_jobs_pkey', 'alter table reveille.blocked_jobs add primary key (id)'),
        (
            'blocked_jobs_by_workflow',
            'create index concurrently blocked_jobs_by_workflow on reveille.blocked_jobs (workflow, id) '
            'where workflow is not null'
        ),
        (
            'blocked_jobs_by_queue',
            'create index concurrently blocked_jobs_by_queue on reveille.blocked_jobs (queue, id)'
        ),
        ('dependencies_pkey', 'alter table reveille.dependencies add primary key (on_job, waiter)'),
        (
            'dependencies_by_label',
            'create unique index concurrently dependencies_by_label on reveille.dependencies (waiter, label)'
        ),
        (
            'linked_ends_of_no_workflow',
            'create index concurrently linked_ends_of_no_workflow on reveille.linked_ends (ended_at) '
            'where workflow is null'
        ),
        (
            'linked_ends_of_workflows',
            'create index concurrently linked_ends_of_workflows on reveille.linked_ends (ended_at) '
            'where workflow is not null'
        ),
        (
            'linked_ends_were_blocked',
            'create index concurrently linked_ends_were_blocked on reveille.linked_ends (workflow) where was_blocked'
        ),
        ('linked_ends_pkey', 'alter table reveille.linked_ends add primary key (job)'),
        ('totals_pkey', 'alter table reveille.totals add primary key (queue)'),
        ('schedules_pkey', 'alter table reveille.schedules add primary key (id)'),
        ('schedules_name', 'create unique index concurrently schedules_name on reveille.schedules (name)'),
        (
            'schedules_due',
            'create index concurrently schedules_due on reveille.schedules '
            '((coalesce(next_at, ''-infinity''::timestamptz))) where paused_at is null and error is null'
        ),
        (
            'schedule_declarations_pkey',
            'alter table reveille.schedule_declarations add primary key (schedule_id, worker)'
        ),
        (
            'schedule_declarations_worker',
            'create index concurrently schedule_declarations_worker on reveille.schedule_declarations (worker)'
        )
),
indexes as (
    select pg_index.*, relations.relname, pg_class.relam
    from pg_index
    join pg_class on pg_class.oid = indexrelid
    join relations on relations.oid = indexrelid
),
-- Each trigger whose absence would do harm unnoticed, with that harm.
expected_triggers (relname, name, otherwise) as (
    values
        ('jobs', 'ring', 'inserts wake no worker'), ('jobs', 'ring_moved', 'jobs made due sooner wake no worker'),
        ('jobs', 'check_inserted', 'nothing keeps bad jobs out'),
        ('jobs', 'check_changed', 'nothing keeps jobs from being made bad'),
        ('jobs', 'check_unclaimed', 'nothing keeps waiting jobs from being made bad'),
        ('jobs', 'unpark_changed_job', 'parked jobs that are changed stay parked'),
        ('pauses', 'began', 'workers start jobs that they claimed before a pause'),
        ('pauses', 'ended', 'parked jobs start late after their pause'),
        ('sleepers', 'mark', 'a bell that is switched off still rings'),
        ('queues', 'mark_sleepers', 'sleeping workers miss that a bell is switched on or off'),
        ('queues', 'note_limits', 'new limits do not hold'),
        ('queues', 'limits_changed', 'workers notice new limits late'),
        ('schedules', 'count_anew', 'a changed schedule keeps its old next tick'),
        ('schedules', 'tell_of_new', 'workers notice new schedules late'),
        ('schedules', 'tell_of_change', 'workers notice changed schedules late'),
        ('counters', 'keep_totals', 'totals and metrics lose attempts')
),
triggers as (
    select expected_triggers.*, tgenabled
    from expected_triggers
    join relations using (relname)
    left join pg_trigger on tgrelid = relations.oid and tgname = name and not tgisinternal
),
partitions as (
    select format('finished_jobs_%s', day) as name, day, relations.oid, attached.inhparent is not null as attached
    from generate_series(0, 31) as day
    left join relations on relations.relname = format('finished_jobs_%s', day)
    left join (
        select inhrelid, inhparent from pg_inherits
        join relations on relations.oid = inhparent and relations.relname = 'finished_jobs'
    ) as attached on attached.inhrelid = relations.oid and relations.bound = format('FOR VALUES IN (''%s'')', day)
),
rows as (
    select
        coalesce(n_live_tup, 0) as live, coalesce(n_dead_tup, 0) as dead, last_autovacuum,
        pg_total_relation_size(relid) as size
    from pg_stat_all_tables
    join relations on relations.oid = relid
    where relations.relname = 'jobs'
),
-- The roles with which workers connect; `may` is true if the role may vacuum reveille.jobs.
keepers as (
    select distinct
        usename,
        pg_has_role(usename, relowner, 'usage')
            or exists (
                select from pg_database where datname = current_database() and pg_has_role(usename, datdba, 'usage')
            )
            or case
                when current_setting('server_version_num')::int >= 170000
                then has_table_privilege(usename, pg_class.oid, 'MAINTAIN')
                else false
            end as may
    from pg_stat_activity
    cross join relations
    join pg_class on pg_class.oid = relations.oid
    where datname = current_database()
        and application_name in ('reveille worker', 'reveille listener', 'reveille heartbeat') and usename is not null
        and relations.relname = 'jobs'
),
-- The privileges that a role needs to enqueue, to work, to fire schedules and to read the views.
needs (place, ability, names, privileges) as (
    values
        (1, 'enqueue', array['jobs'], array['insert', 'select']),
        (2, 'work', array['jobs'], array['select', 'insert', 'update', 'delete']),
        (
            2, 'work', array['workers', 'counters', 'kind_counters', 'rates'],
            array['select', 'insert', 'update', 'delete']
        ),
        (2, 'work', array['limits'], array['select', 'insert', 'update']),
        (2, 'work', array['sleepers'], array['select', 'insert', 'delete']),
        (2, 'work', array['unique_periods'], array['select', 'update', 'delete']),
        (2, 'work', array['dead_jobs', 'finished_jobs'], array['select', 'insert', 'update', 'delete']),
        (2, 'work', array['ends'], array['select', 'insert', 'update', 'delete']),
        (
            2, 'work',
            array[
                'linked_ends', 'blocked_jobs', 'dependencies', 'workflow_jobs', 'workflows', 'steps', 'waits', 'events'
            ],
            array['select', 'insert', 'update', 'delete']
        ),
        (2, 'work', array['chores'], array['select', 'update']),
        (2, 'work', array['actions'], array['select', 'delete']),
        (2, 'work', array['queues', 'pauses', 'schema_history'], array['select']),
        (3, 'fire schedules', array['schedules'], array['select', 'insert', 'update']),
        (3, 'fire schedules', array['schedule_declarations'], array['select', 'insert']),
        (
            4, 'look',
            array[
                'queue_stats', 'running_jobs', 'failing_jobs', 'dead_jobs_overview', 'worker_status', 'throughput',
                'queue_limits', 'queue_totals', 'kind_totals', 'kind_stats', 'waiting_jobs', 'schedule_status',
                'action_status', 'pause_status', 'job_list', 'dead_job_list', 'finished_job_list', 'workflow_status',
                'workflow_job_status', 'blocked_jobs_overview', 'job_dependencies', 'job_steps'
            ],
            array['select']
        )
),
lacks as (
    select place, ability, name, string_agg(distinct privilege, ', ' order by privilege) as privileges
    from needs
    cross join unnest(names) as name
    cross join unnest(privileges) as privilege
    join relations on relations.relname = name
    -- A role that enqueues needs these privileges only on some columns, and so does upkeep to find old actions
    -- (sql/grants.sql).
    where not case
        when place = 1 or (name = 'actions' and privilege = 'select')
        then has_any_column_privilege(relations.oid, privilege)
        else has_table_privilege(relations.oid, privilege)
    end
    group by place, ability, name
    union all
    select place, ability, format('the function %s', name), 'execute'
    from (values
        (1, 'enqueue', 'enqueue'), (1, 'enqueue', 'check_job'), (1, 'enqueue', 'somebody_may_sleep'),
        (2, 'work', 'note_nobody_sleeps'), (2, 'work', 'ring'), (2, 'work', 'tell_head'), (2, 'work', 'told_head'),
        (2, 'work', 'can_be_sent'), (2, 'work', 'truncate_finished_jobs'), (2, 'work', 'fresh_job_id'),
        (2, 'work', 'pause_of'), (2, 'work', 'unpark'), (2, 'work', 'apply_linked_ends'), (2, 'work', 'note_end'),
        (2, 'work', 'pass_given_ids'), (2, 'work', 'analyze_unknown_tables'), (2, 'work', 'sum_of_histograms'),
        (3, 'fire schedules', 'schedule')
    ) as needs (place, ability, name)
    join pg_proc on proname = needs.name
    join home on home.oid = pronamespace
    where not has_function_privilege(pg_proc.oid, 'execute')
),
lacking as (
    select
        place, ability,
        case
            when not has_schema_privilege(home.oid, 'usage') then format('usage on schema %s', home.nspname)
            else (
                select string_agg(format('%s on %s', lacks.privileges, lacks.name), '; ' order by lacks.name)
                from lacks
                where lacks.place = needs.place
            )
        end as what
    from home, (select distinct place, ability from needs) as needs
),
abilities as (
    select
        string_agg(ability, ', ' order by place) filter (where what is null) as may,
        string_agg(format('to %s it lacks %s', ability, what), '; ' order by place)
            filter (where what is not null) as lacking
    from lacking
),
found (name, state, finding, advice) as (
    select 'indexes', 'bad', format('the index %s is missing', expected.name), made_by
    from expected
    where not exists (select from indexes where indexes.relname = expected.name)
    union all
    select
        'indexes', case when relname in (select expected.name from expected) then 'bad' else 'note' end,
        format('the index %s is not valid: nothing uses it', relname),
        format('reindex index concurrently reveille.%s, or drop it if it was left by a failed attempt', relname)
    from indexes
    where not (indisvalid and indisready)
    union all
    select
        'indexes', 'note',
        format('the indexes %s are the same: each write pays for all', string_agg(relname, ', ' order by relname)),
        format(
            'drop index concurrently reveille.%s',
            coalesce(min(relname) filter (where relname not in (select expected.name from expected)), min(relname))
        )
    from indexes
    where indrelid in (select oid from relations where not relispartition)
    group by
        indrelid, relam, indnkeyatts, indkey::text, indclass::text, indcollation::text, indoption::text,
        pg_get_expr(indexprs, indrelid), pg_get_expr(indpred, indrelid)
    having count(*) > 1
    union all
    select
        'trigger', 'bad', format('the trigger %s on reveille.%s is missing: %s', name, relname, otherwise),
        'create it anew as `reveille migrate --print` shows it'
    from triggers
    where tgenabled is null
    union all
    select
        'trigger', 'bad', format('the trigger %s on reveille.%s is disabled: %s', name, relname, otherwise),
        format('alter table reveille.%s enable trigger %s', relname, name)
    from triggers
    where tgenabled not in ('O', 'A')
    union all
    select
        'partitions', 'bad', format('%s is not attached: no job can finish on its day', name),
        case
            when oid is null
            then format('create table reveille.%s partition of reveille.finished_jobs for values in (%s)', name, day)
            else format('alter table reveille.finished_jobs attach partition reveille.%s for values in (%s)', name, day)
        end
    from partitions
    where not attached
    union all
    select
        'vacuum', 'bad', format('autovacuum is switched off for reveille.%s', relname),
        format('alter table reveille.%s reset (autovacuum_enabled)', relname)
    from relations
    cross join pg_options_to_table(reloptions) as options
    where relkind = 'r' and options.option_name = 'autovacuum_enabled' and not options.option_value::boolean
    union all
    select
        'vacuum', 'note',
        format(
            'reveille.jobs has %s dead rows beside %s live ones; last autovacuum: %s', dead, live,
            coalesce(date_trunc('second', last_autovacuum)::text, 'never')
        ),
        'see the check horizon for what holds vacuum back; then vacuum reveille.jobs'
    from rows
    where dead > 1000000 or (dead > 100000 and dead > 10 * live)
    union all
    select
        'vacuum', 'note',
        format(
            'reveille.jobs has %s dead rows in %s, and workers connect as %s, which may not vacuum it: '
            'only autovacuum does, at most once every %s',
            dead, pg_size_pretty(size), usename, current_setting('autovacuum_naptime')
        ),
        case
            when current_setting('server_version_num')::int >= 170000
            then format('grant maintain on all tables in schema %I to %I', home.nspname, usename)
            else 'set autovacuum_naptime to 10 s, or let one worker connect as the owner of the tables'
        end
    from rows, home, keepers
    where (dead > 100000 or size > 500000000) and not keepers.may
    union all
    select
        'roles', 'note', format('%s may do nothing here: %s', current_user, lacking),
        'grant it one of the roles of `reveille migrate --print-grants`, or connect as another user'
    from abilities
    where may is null
    union all
    -- By default, a search path begins with the schema that has the name of the role.
    select
        'roles', 'note',
        format(
            'the role %s has the name of the schema: tables that it makes without naming a schema land among '
            'Reveille''s',
            rolname
        ),
        format('rename the role, or: alter role %I set search_path = public', rolname)
    from pg_roles
    join home on home.nspname = rolname
    where rolcanlogin and has_schema_privilege(pg_roles.oid, home.oid, 'create')
        and not exists (
            select
            from pg_db_role_setting
            cross join unnest(setconfig) as setting
            where setrole in (0, pg_roles.oid)
                and setdatabase in (0, (select oid from pg_database where datname = current_database()))
                and setting like 'search_path=%' and setting not like '%$user%'
        )
    union all
    -- A row security policy may show all rows or none; the catalogue does not say which.
    select
        'roles', 'bad',
        format(
            'row security is on for %s: %s', string_agg('reveille.' || relname, ', ' order by relname),
            case
                when bool_or(relforcerowsecurity)
                then 'workers, and the triggers that wake them, see only the rows that policies show them'
                else 'roles that do not own a table see only the rows that its policies show them, and jobs may never '
                    'start'
            end
        ),
        string_agg(
            format('alter table reveille.%s no force row level security, disable row level security', relname),
            '; ' order by relname
        )
    from relations
    where relkind in ('r', 'p') and relrowsecurity
    having count(*) > 0
    union all
    select
        'roles', 'bad',
        format(
            'every role may run %s as the owner, by a trigger on a table that it owns',
            string_agg(proname, ', ' order by proname)
        ),
        string_agg(format('revoke execute on function reveille.%s() from public', proname), '; ' order by proname)
    from pg_proc
    join home on home.oid = pronamespace
    where prosecdef and prorettype = 'trigger'::regtype
        and exists (
            select from aclexplode(coalesce(proacl, acldefault('f', proowner))) as granted
            where granted.grantee = 0 and granted.privilege_type = 'EXECUTE'
        )
    having count(*) > 0
),
well (name, finding) as (
    select 'indexes', format('all %s are there and valid', count(*)) from expected
    union all select 'trigger', 'inserts are checked and ring the bell'
    union all select 'partitions', format('all %s are attached', count(*)) from partitions
    union all select 'vacuum', format('reveille.jobs has %s dead rows beside %s live ones', dead, live) from rows
    union all
    select 'roles', concat_ws('; ', format('%s may %s', current_user, may), lacking) from abilities
)
select name as check, state, finding, advice from found
union all
select name, 'ok', finding, null from well where not exists (select from found where found.name = well.name)
