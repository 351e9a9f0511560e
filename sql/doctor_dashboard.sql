-- The doctor's check of the roles with which dashboards connect, in the catalogue: they may do too much, or see too
-- little. It needs no privilege and reads no row of Reveille's tables.
--
-- Returns one row per finding, with the columns of sql/doctor_server.sql.
with
home as (select oid, nspname from pg_namespace where nspname || '.' = 'reveille.'),
relations as (
    select pg_class.oid, relname, relkind, relowner
    from pg_class
    join home on home.oid = relnamespace
    where relkind in ('r', 'p', 'v')
),
roles as (
    select distinct pg_roles.oid, rolname, rolsuper
    from pg_stat_activity
    join pg_roles on pg_roles.oid = usesysid
    where datname = current_database() and application_name = 'reveille dashboard'
),
powers (rolname, what) as (
    select rolname, 'is a superuser' from roles where rolsuper
    union all
    select rolname, 'may alter and drop Reveille''s tables'
    from roles
    where not rolsuper
        and exists (select from relations where relname = 'jobs' and pg_has_role(roles.oid, relowner, 'usage'))
    union all
    select
        rolname,
        (
            select format('may read or change tables that are not Reveille''s: %s among them', min(oid::regclass::text))
            from (
                select pg_class.oid
                from pg_class
                join pg_namespace on pg_namespace.oid = relnamespace
                where relkind in ('r', 'p') and relnamespace not in (select oid from home)
                    and nspname not in ('pg_catalog', 'information_schema') and nspname not like 'pg\_%'
                    and has_schema_privilege(roles.oid, relnamespace, 'usage')
                    and has_table_privilege(roles.oid, pg_class.oid, 'select, insert, update, delete')
                limit 1
            ) as others
            having count(*) > 0
        )
    from roles
    where not rolsuper
),
-- What the pages read. A dashboard of the shipped role reveille_monitor can read all of it.
reads (relname) as (
    select relname from relations where relkind = 'v'
    union all
    values ('queues'), ('counters'), ('kind_counters'), ('schema_history')
),
hidden as (
    select rolname, string_agg(relname, ', ' order by relname) as what
    from roles
    cross join reads
    join relations using (relname)
    where not has_table_privilege(roles.oid, relations.oid, 'select')
    group by rolname
),
-- A dashboard makes no change that it cannot record.
unrecorded as (
    select rolname
    from roles
    cross join relations as jobs
    cross join relations as actions
    where jobs.relname = 'jobs' and has_table_privilege(roles.oid, jobs.oid, 'update')
        and actions.relname = 'actions' and not has_table_privilege(roles.oid, actions.oid, 'insert')
),
found (name, finding, advice) as (
    select
        'dashboard',
        format(
            'the role %s of a dashboard can do too much: it %s', rolname, string_agg(what, ', and ' order by what)
        ),
        format('let it connect as a user with only the role %1$s_monitor, or %1$s_admin for changes', nspname)
    from powers
    cross join home
    where what is not null
    group by rolname, nspname
    union all
    select
        'dashboard', format('the role %s of a dashboard may not read %s: pages show errors', rolname, what),
        format('run the SQL of `reveille migrate --print-grants`, then: grant %I to %I', nspname || '_monitor', rolname)
    from hidden
    cross join home
    union all
    select
        'dashboard',
        format('the role %s of a dashboard may change jobs and may not record it: pages offer no change', rolname),
        format('grant insert, update on %I.actions to %I', nspname, rolname)
    from unrecorded
    cross join home
)
select name as check, 'note' as state, finding, advice from found
union all
select
    'dashboard', 'ok',
    case
        when count(*) = 0 then 'no dashboard is connected'
        else format('connects as %s, which may do no more than it should', string_agg(rolname, ', ' order by rolname))
    end,
    null
from roles
having not exists (select from found)
