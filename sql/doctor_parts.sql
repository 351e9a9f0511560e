-- The doctor's checks of the catalogue: the functions and views of the migrations, and the privileges of the shipped
-- roles. They need no privilege and read no row of Reveille's tables.
--
--   $1 text[]  the functions that the migrations create
--   $2 text[]  the views that the migrations create
--
-- Returns one row per finding, with the columns of sql/doctor_server.sql.
with
home as (select oid, nspname from pg_namespace where nspname || '.' = 'reveille.'),
relations as (
    select pg_class.oid, relname, relkind
    from pg_class
    join home on home.oid = relnamespace
    where relkind in ('r', 'p', 'v', 'S')
),
functions as (
    select pg_proc.oid, proname from pg_proc join home on home.oid = pronamespace
),
missing as (
    select 'function' as what, name from unnest($1::text[]) as name where name not in (select proname from functions)
    union all
    select 'view', name
    from unnest($2::text[]) as name
    where name not in (select relname from relations where relkind = 'v')
),
roles as (
    select pg_roles.oid, rolname, part
    from home
    cross join unnest(array['producer', 'worker', 'monitor', 'admin']) as part
    join pg_roles on rolname = nspname || '_' || part
),
-- The privileges of sql/grants.sql without which a role cannot do its work.
given (part, names, privileges) as (
    values
        ('producer', array['jobs'], array['insert', 'select']),
        ('producer', array['schema_history'], array['select']),
        ('worker', array['jobs', 'dead_jobs', 'finished_jobs', 'workers', 'sleepers', 'counters', 'rates', 'ends'],
            array['select', 'insert', 'update', 'delete']),
        ('worker', array['unique_periods'], array['select', 'update', 'delete']),
        ('worker', array['schedules', 'schedule_declarations'], array['select', 'insert']),
        ('worker', array['chores'], array['select', 'update']),
        ('worker', array['limits'], array['select', 'insert', 'update']),
        ('worker', array['actions'], array['delete']),
        ('worker', array['queues', 'schema_history'], array['select']),
        ('monitor', $2::text[], array['select']),
        ('monitor', array['schema_history'], array['select']),
        ('admin', $2::text[], array['select']),
        ('admin', array['jobs', 'dead_jobs', 'finished_jobs', 'queues', 'workers', 'sleepers', 'schedules', 'ends'],
            array['select', 'insert', 'update', 'delete']),
        ('admin', array['unique_periods'], array['select', 'update', 'delete']),
        ('admin', array['chores'], array['select', 'update']),
        ('admin', array['actions'], array['select', 'insert', 'update', 'delete']),
        ('admin', array['schema_history'], array['select'])
),
executes (part, names) as (
    values
        ('producer', array[
            'enqueue', 'enqueue_json', 'read_json_jobs', 'refusal_of_json_jobs', 'refusal_of_json_job',
            'replace_waiting', 'hold_unique_key', 'period_holder', 'live_holder'
        ]),
        ('worker', array[
            'enqueue', 'enqueue_json', 'await', 'ring', 'note_nobody_sleeps', 'truncate_finished_jobs',
            'analyze_unknown_tables', 'complete_in', 'schedule'
        ]),
        ('monitor', array['held_jobs', 'dead_groups', 'reads_any']),
        ('admin', array[
            'enqueue', 'enqueue_json', 'await', 'cancel', 'retry', 'pause', 'resume', 'stop_worker', 'schedule',
            'unschedule', 'pause_schedule', 'resume_schedule', 'trigger_schedule', 'held_jobs', 'dead_groups'
        ])
),
lacks as (
    select roles.rolname, format('%s on %s', string_agg(privilege, ', ' order by privilege), name) as what
    from roles
    join given using (part)
    cross join unnest(names) as name
    cross join unnest(privileges) as privilege
    join relations on relations.relname = name
    where not case
        -- A producer needs these privileges only on some columns.
        when part = 'producer' then has_any_column_privilege(roles.oid, relations.oid, privilege)
        else has_table_privilege(roles.oid, relations.oid, privilege)
    end
    group by roles.rolname, name
    union all
    select roles.rolname, format('execute on the function %s', name)
    from roles
    join executes using (part)
    cross join unnest(names) as name
    join functions on functions.proname = name
    where not has_function_privilege(roles.oid, functions.oid, 'execute')
    union all
    select roles.rolname, format('usage on schema %s', home.nspname)
    from roles, home
    where not has_schema_privilege(roles.oid, home.oid, 'usage')
),
found (name, state, finding, advice) as (
    select
        'functions', 'bad', format('the %s %s is missing', what, name),
        'create it anew as `reveille migrate --print` shows it'
    from missing
    union all
    select
        'grants', 'bad', format('the role %s lacks %s', rolname, string_agg(what, '; ' order by what)),
        'run the SQL that `reveille migrate --print-grants` prints, as after each migration'
    from lacks
    group by rolname
),
well (name, finding) as (
    select
        'functions',
        format('all %s functions and %s views are there', cardinality($1::text[]), cardinality($2::text[]))
    union all
    select
        'grants',
        case
            when count(*) = 0 then 'the roles of `reveille migrate --print-grants` are not in use'
            else format('%s have all privileges that they need', string_agg(rolname, ', ' order by rolname))
        end
    from roles
)
select name as check, state, finding, advice from found
union all
select name, 'ok', finding, null from well where not exists (select from found where found.name = well.name)
