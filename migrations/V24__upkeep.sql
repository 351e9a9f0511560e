-- Upkeep: one chore at a time, each in slices, each slice a short transaction of one worker. What finished is kept as long as its queue
-- says, dead jobs too, and the tables of live jobs are vacuumed while they are churned.

create table reveille.chores (
    name                text primary key,
    day                 smallint,
    next_page           bigint,
    settings            text,
    began_at            timestamptz,
    done_at             timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
comment on table reveille.chores is
    'What upkeep does: a worker locks the row of a chore for one slice of it, so that no two workers are at the same chore.';
comment on column reveille.chores.name is 'Which chore.';
comment on column reveille.chores.day is 'The day of the history that it goes through, as in reveille.finished_jobs; null: it is no such chore.';
comment on column reveille.chores.next_page is 'The page of that day where the next slice begins; null: no round is under way.';
comment on column reveille.chores.settings is 'The retentions by which the last round went.';
comment on column reveille.chores.began_at is 'When the last round began.';
comment on column reveille.chores.done_at is 'When the last round ended.';

insert into reveille.chores (name)
values ('counters'), ('old counters'), ('rates'), ('unique keys'), ('old days'), ('dead jobs'), ('statistics'), ('vacuum');
insert into reveille.chores (name, day) select 'day ' || day, day from generate_series(0, 31) as day;

-- One day a call, so that it holds the lock of no second one. With its owner's rights: to truncate a partition is not a worker's by itself.
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
    add constraint dead_retention_is_0_to_100_years check (dead_retention between interval '0' and interval '36500 days');
comment on column reveille.queues.dead_retention is 'How long its dead jobs are kept: 0 to 36500 days; null: until they are revived or purged.';
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
    'Analyzes those of the tables of live and dead jobs that are large and of which the planner knows nothing; workers call it. Returns how many.';
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
