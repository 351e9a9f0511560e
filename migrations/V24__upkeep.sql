-- Upkeep: one chore at a time, each in slices, each slice a short transaction of one worker. What finished is kept as
-- long as its queue says, dead jobs too, and the tables of live jobs are vacuumed while they are churned.

create table reveille.chores (
    name                text primary key,
    day                 smallint,
    next_page           bigint,
    settings            text,
    began_at            timestamptz,
    done_at             timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
comment on table reveille.chores is
    'What upkeep does: a worker locks the row of a chore for one slice of it, so that no two workers are at the same one.';
comment on column reveille.chores.name is 'Which chore.';
comment on column reveille.chores.day is
    'The day of the history that it goes through, as in reveille.finished_jobs; null: it is no such chore.';
comment on column reveille.chores.next_page is
    'The page of that day where the next slice begins; null: no round is under way.';
comment on column reveille.chores.settings is 'The retentions by which the last round went.';
comment on column reveille.chores.began_at is 'When the last round began.';
comment on column reveille.chores.done_at is 'When the last round ended.';

insert into reveille.chores (name)
values
    ('counters'), ('old counters'), ('rates'), ('unique keys'), ('old days'), ('dead jobs'), ('statistics'), ('vacuum');
insert into reveille.chores (name, day) select 'day ' || day, day from generate_series(0, 31) as day;

-- As of the known migrations: a restored dump of the data brings the chores along.
create function reveille.pass_over_known_chore() returns trigger
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    return case when exists (select from reveille.chores where name = new.name) then null else new end;
end
$$;
comment on function reveille.pass_over_known_chore() is
    'Passes over the chores that a restored dump of the data brings along and that are known already.';

create trigger pass_over_known before insert on reveille.chores
    for each row execute function reveille.pass_over_known_chore();
alter table reveille.chores enable always trigger pass_over_known;

-- One day a call, so that it holds the lock of no second one. With its owner's rights: to truncate a partition is not a
-- worker's by itself.
create or replace function reveille.truncate_finished_jobs() returns int
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '100ms'
as $$
declare
    today constant int := extract(epoch from now())::bigint / 86400;
    longest interval;
    kept_days int;
begin
    select greatest(max(coalesce(retention, interval '1 day')), interval '1 day') into longest from reveille.queues;
    kept_days := ceil(extract(epoch from coalesce(longest, interval '1 day')) / 86400);
    for age in kept_days + 1 .. 31 loop
        declare
            partition constant text := format('reveille.finished_jobs_%s', (today - age + 32) % 32);
        begin
            if pg_relation_size(partition) > 0 then
                execute 'truncate ' || partition;
                return 1;
            end if;
        exception when lock_not_available then
            null; -- Somebody reads it: the next round will do it.
        end;
    end loop;
    return 0;
end
$$;
comment on function reveille.truncate_finished_jobs() is
    'Empty a daily partition that is past the longest retention; workers call it. Returns how many: 1 or 0.';

alter table reveille.queues
    add column dead_retention interval,
    add constraint dead_retention_is_0_to_100_years check (
        dead_retention between interval '0' and interval '36500 days'
    );
comment on column reveille.queues.dead_retention is
    'How long its dead jobs are kept: 0 to 36500 days; null: until they are revived or purged.';
comment on column reveille.queues.retention is
    'How long its finished jobs are kept, to the hour: 0 to 30 days; null: 1 day; 0: they are not written at all.';

-- With its owner's rights: to analyze a table is not a worker's by itself.
create function reveille.analyze_unknown_tables() returns int
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    unknown text;
    analyzed int := 0;
begin
    for unknown in
        select format('%I.%I', nspname, relname)
        from pg_class
        join pg_namespace on pg_namespace.oid = relnamespace
        where pg_class.oid in ('reveille.jobs'::regclass, 'reveille.dead_jobs'::regclass)
            and pg_relation_size(pg_class.oid) > 1000000
            and not exists (select from pg_statistic where starelid = pg_class.oid)
    loop
        execute 'analyze (skip_locked) ' || unknown;
        analyzed := analyzed + 1;
    end loop;
    return analyzed;
end
$$;
comment on function reveille.analyze_unknown_tables() is
    'Analyzes those of the tables of live and dead jobs that are large and of which the planner knows nothing; '
    'workers call it. Returns how many.';
revoke execute on function reveille.analyze_unknown_tables() from public;

-- Who does the upkeep so far may go on with it, without being granted it anew.
do $$
declare
    keeper oid;
begin
    for keeper in
        select distinct granted.grantee
        from (select (aclexplode(relacl)).* from pg_class where oid = 'reveille.counters'::regclass) as granted
        where granted.privilege_type = 'DELETE' and granted.grantee <> 0
    loop
        execute format('grant select, update on reveille.chores to %I', pg_get_userbyid(keeper));
        execute format('grant execute on function reveille.analyze_unknown_tables() to %I', pg_get_userbyid(keeper));
    end loop;
end
$$;

-- What is churned is vacuumed without a rest between its pages: at 25,000 jobs a second a vacuum that rests comes to no
-- end.
alter table reveille.jobs set (autovacuum_vacuum_cost_delay = 0, toast.autovacuum_vacuum_cost_delay = 0);
-- A day of the history is only added to, and then truncated: to vacuum it for what was inserted is in vain, and keeps a
-- worker of autovacuum from the jobs. What is deleted from it is vacuumed as ever, and so is a day whose rows become so
-- old that they have to be frozen.
do $$
begin
    for day in 0..31 loop
        execute format(
            'alter table reveille.finished_jobs_%s
            set (autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1)',
            day
        );
    end loop;
end
$$;

-- What runs and what is dead, found by its index in whatever session, and whatever is known of the tables: where
-- nothing is, the planner would read a table of millions of dead rows for the few that run. A view is read with the
-- settings of who asks, so the views ask these functions. They have their owner's rights, since a view lends its own to
-- tables alone. So anybody may call them, and they answer only who may read what is made of them: the role that is set,
-- else the session's user, since the current user is the owner here.
create function reveille.reads_any(variadic relations text[]) returns boolean
    language sql stable
    set search_path = pg_catalog, pg_temp
as $$
    select bool_or(has_table_privilege(
        coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, relation::regclass, 'select'
    ))
    from unnest(relations) as relation
$$;
comment on function reveille.reads_any(text[]) is 'Whether who asks may read one of these tables or views.';

create function reveille.held_jobs(
    out id bigint, out queue text, out kind text, out attempt int, out worker bigint, out reserved_at timestamptz,
    out cancel_requested_at timestamptz
) returns setof record
    language plpgsql stable security definer rows 100
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_bitmapscan = off
    set enable_sort = off
    set jit = off
as $$
#variable_conflict use_column
begin
    if not reveille.reads_any(
        'reveille.jobs', 'reveille.known_queues', 'reveille.queue_stats', 'reveille.running_jobs',
        'reveille.worker_status'
    ) then
        raise exception 'permission denied for view running_jobs' using errcode = 'insufficient_privilege';
    end if;
    return query
        select
            jobs.id, jobs.queue, jobs.kind, jobs.attempts, jobs.reserved_by, jobs.reserved_at,
            jobs.cancel_requested_at
        from reveille.jobs
        where jobs.reserved_at is not null
        order by jobs.reserved_by;
end
$$;
comment on function reveille.held_jobs() is
    'The jobs that workers hold: what the views ask. See reveille.running_jobs.';

create function reveille.dead_groups(
    out queue text, out kind text, out reason text, out jobs bigint, out first_died_at timestamptz,
    out last_died_at timestamptz
) returns setof record
    language plpgsql stable security definer rows 100
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_bitmapscan = off
    set enable_sort = off
    set enable_hashagg = off
    set jit = off
as $$
#variable_conflict use_column
begin
    if not reveille.reads_any('reveille.dead_jobs', 'reveille.queue_stats', 'reveille.dead_jobs_overview') then
        raise exception 'permission denied for view dead_jobs_overview' using errcode = 'insufficient_privilege';
    end if;
    return query
        select dead.queue, dead.kind, dead.reason, count(*), min(dead.finished_at), max(dead.finished_at)
        from reveille.dead_jobs as dead
        group by dead.queue, dead.kind, dead.reason
        order by dead.queue, dead.kind, dead.reason;
end
$$;
comment on function reveille.dead_groups() is
    'How many jobs are dead by queue, kind and reason: what the views ask. See reveille.dead_jobs_overview.';

create or replace view reveille.known_queues as
with recursive waiting as (
    (select queue from reveille.jobs where reserved_at is null order by queue limit 1)
    union all
    select (
        select jobs.queue from reveille.jobs
        where jobs.reserved_at is null and jobs.queue > waiting.queue order by jobs.queue limit 1
    )
    from waiting
    where waiting.queue is not null
),
dead as (
    (select queue from reveille.dead_jobs order by queue limit 1)
    union all
    select (select dead_jobs.queue from reveille.dead_jobs where dead_jobs.queue > dead.queue order by dead_jobs.queue limit 1)
    from dead
    where dead.queue is not null
),
counted as (
    (select queue from reveille.counters order by queue limit 1)
    union all
    select (select counters.queue from reveille.counters where counters.queue > counted.queue order by counters.queue limit 1)
    from counted
    where counted.queue is not null
)
select queue from waiting where queue is not null
union select queue from dead where queue is not null
union select queue from reveille.held_jobs()
union select name from reveille.queues
union select unnest(queues) from reveille.workers
union
select queue from counted
where exists (
    select from reveille.counters where counters.queue = counted.queue and counters.started_at > now() - interval '1 day'
);

create or replace view reveille.queue_stats as
with planner as materialized (
    -- The planner's statistics: rows in the claim index, the shares of the commonest queues, the share that is due.
    select
        (select reltuples from pg_catalog.pg_class where oid = 'reveille.jobs_claim'::regclass) as waiting,
        common.queues, common.shares,
        coalesce((
            select coalesce(common.due, 0) + (1 - coalesce(common.share, 0)) * coalesce(others.due, 0.5)
            from pg_catalog.pg_stats as stats
            cross join lateral (
                select sum(freq) as share, sum(freq) filter (where val <= now()) as due
                from unnest(stats.most_common_vals::text::timestamptz[], stats.most_common_freqs) as mcv (val, freq)
            ) as common
            cross join lateral (
                select avg((bound <= now())::int) as due from unnest(stats.histogram_bounds::text::timestamptz[]) as bound
            ) as others
            where (stats.schemaname || '.' || stats.tablename) = 'reveille.jobs' and stats.attname = 'available_at'
        ), 0.5) as due_share
    from (values (true)) as always (one)
    left join lateral (
        select stats.most_common_vals::text::text[] as queues, stats.most_common_freqs as shares
        from pg_catalog.pg_stats as stats
        where (stats.schemaname || '.' || stats.tablename) = 'reveille.jobs' and stats.attname = 'queue'
    ) as common on true
)
select
    known.queue,
    coalesce(settings.paused_at is not null, false) as paused,
    case
        when ready.counted <= 10000 then ready.counted
        when delayed.counted <= 10000 then greatest(ready.counted, planned.waiting::bigint - delayed.counted)
        else greatest(ready.counted, (planned.waiting * planned.due_share)::bigint)
    end as ready,
    case
        when delayed.counted <= 10000 then delayed.counted
        when ready.counted <= 10000 then greatest(delayed.counted, planned.waiting::bigint - ready.counted)
        else greatest(delayed.counted, (planned.waiting * (1 - planned.due_share))::bigint)
    end as delayed,
    coalesce((counts.running ->> known.queue)::bigint, 0) as running,
    coalesce((counts.dead ->> known.queue)::bigint, 0) as dead,
    ready.counted > 10000 or delayed.counted > 10000 as estimated,
    oldest.ready_age as oldest_ready_age,
    recent.completed as completed_last_minute,
    recent.failed as failed_last_minute
-- That each name has 1 to 128 characters says a constraint; said here, it has the planner expect a single queue.
from (
    select queue from unnest(array(select queue from reveille.known_queues)) as listed (queue)
    where length(queue) between 1 and 128
) as known
cross join (
    select
        (select jsonb_object_agg(queue, jobs) from (
            select queue, count(*) as jobs from reveille.held_jobs() group by queue
        ) as a_queue) as running,
        (select jsonb_object_agg(queue, jobs) from (
            select queue, sum(jobs) as jobs from reveille.dead_groups() group by queue
        ) as a_queue) as dead
) as counts
left join reveille.queues as settings on settings.name = known.queue
-- Level by level, so that nothing is passed over; in the order of the claims' index, so that no other is thought of.
cross join lateral (
    select count(*) as counted
    from (
        select from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
        cross join lateral (
            select from reveille.jobs
            where jobs.queue = known.queue and jobs.priority = level.priority
                and jobs.reserved_at is null and jobs.available_at <= now()
            order by jobs.available_at
            limit 10001
        ) as due
        limit 10001
    ) as bounded
) as ready
cross join lateral (
    select count(*) as counted
    from (
        select from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
        cross join lateral (
            select from reveille.jobs
            where jobs.queue = known.queue and jobs.priority = level.priority
                and jobs.reserved_at is null and jobs.available_at > now()
            order by jobs.available_at
            limit 10001
        ) as later
        limit 10001
    ) as bounded
) as delayed
left join lateral (
    select
        planner.waiting * coalesce(planner.shares[array_position(planner.queues, known.queue)], 0) as waiting,
        planner.due_share
    from planner
    where ready.counted > 10000 or delayed.counted > 10000
) as planned on true
cross join lateral (
    -- Of an infinite time there is no age.
    select now() - nullif(min(first.available_at), '-infinity') as ready_age
    from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
    cross join lateral (
        select jobs.available_at from reveille.jobs
        where jobs.queue = known.queue and jobs.priority = level.priority
            and jobs.reserved_at is null and jobs.available_at <= now()
        order by jobs.available_at limit 1
    ) as first
) as oldest
cross join lateral (
    select coalesce(sum(completed), 0)::bigint as completed, coalesce(sum(failed), 0)::bigint as failed
    from reveille.counters
    where counters.queue = known.queue and counters.started_at > now() - interval '70 seconds' and counters.worker <> 0
) as recent;

create or replace view reveille.running_jobs as
select
    held.id, held.queue, held.kind, held.attempt, held.worker, workers.host,
    now() - case when isfinite(held.reserved_at) then held.reserved_at end as running_for,
    held.cancel_requested_at,
    workers.stuck_since[array_position(workers.stuck_jobs, held.id)] as stuck_since
from reveille.held_jobs() as held
left join reveille.workers on workers.id = held.worker;

create or replace view reveille.worker_status as
select
    workers.id as worker, workers.host, workers.pid, workers.queues,
    coalesce((
        (select jsonb_object_agg(worker, jobs) from (
            select worker, count(*) as jobs from reveille.held_jobs() group by worker
        ) as a_worker) ->> workers.id::text
    )::bigint, 0) as running,
    workers.slots, workers.started_at, workers.last_seen_at as last_seen,
    workers.last_seen_at > clock_timestamp() - interval '30 seconds' as alive,
    workers.stopping or workers.stop_requested_at is not null as stopping,
    workers.version,
    coalesce(cardinality(workers.stuck_jobs), 0) as stuck
from reveille.workers;

create or replace view reveille.dead_jobs_overview as
select
    grouped.queue, grouped.kind, grouped.reason, grouped.jobs, grouped.first_died_at, grouped.last_died_at,
    last.id as last_id, last.error as last_error
from reveille.dead_groups() as grouped
left join lateral (
    select dead_jobs.id, dead_jobs.errors -> -1 ->> 'error' as error
    from reveille.dead_jobs
    where dead_jobs.queue = grouped.queue and dead_jobs.kind = grouped.kind and dead_jobs.reason = grouped.reason
    -- By all columns of the index, so that no other is thought of.
    order by dead_jobs.queue desc, dead_jobs.kind desc, dead_jobs.reason desc, dead_jobs.finished_at desc
    limit 1
) as last on true;

alter table reveille.schedules add column through_middleware boolean not null default false;
comment on column reveille.schedules.through_middleware is
    'Whether its jobs pass the middleware of a worker that declares it; other workers leave it alone.';
