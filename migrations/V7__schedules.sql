-- Schedules: they enqueue jobs at the ticks of a cron text or of a fixed interval.

create table reveille.schedules (
    id                 bigint      generated always as identity primary key,
    name               text        not null,
    cron               text,
    every              interval,
    time_zone          text        not null default 'UTC',
    catch_up           text        not null default 'one',
    kind               text        not null,
    payload            jsonb       not null default '{}',
    queue              text        not null default 'default',
    priority           smallint    not null default 2,
    max_attempts       int         not null default 20,
    timeout            interval,
    key                text,
    tags               text[],
    metadata           jsonb,
    counted_from       timestamptz not null default now(),
    next_at            timestamptz,
    last_at            timestamptz,
    paused_at          timestamptz,
    declared_at        timestamptz,
    error              text,
    created_at         timestamptz not null default now(),
    through_middleware boolean     not null default false,
    constraint name_has_1_to_128_characters check (length(name) between 1 and 128),
    constraint cron_or_every_is_set check ((cron is null) <> (every is null)),
    constraint cron_has_1_to_256_characters check (length(cron) between 1 and 256),
    constraint every_is_a_millisecond_to_100_years check (
        every between interval '1 millisecond' and interval '36500 days'
    ),
    constraint every_has_no_months check (extract(year from every) = 0 and extract(month from every) = 0),
    constraint time_zone_has_1_to_64_characters check (length(time_zone) between 1 and 64),
    constraint catch_up_is_skip_one_or_all check (catch_up in ('skip', 'one', 'all')),
    constraint kind_has_1_to_128_characters check (length(kind) between 1 and 128),
    constraint queue_has_1_to_128_characters check (length(queue) between 1 and 128),
    constraint priority_is_0_to_3 check (priority between 0 and 3),
    constraint max_attempts_is_positive check (max_attempts > 0),
    constraint timeout_is_positive check (timeout > interval '0'),
    constraint key_has_1_to_512_bytes check (octet_length(key) between 1 and 512),
    constraint metadata_is_an_object check (jsonb_typeof(metadata) = 'object'),
    constraint times_are_finite check (isfinite(counted_from) and isfinite(coalesce(next_at, counted_from))),
    constraint payload_is_at_most_8_mib
        check (pg_column_size(payload) <= 512 or octet_length(payload::text) <= 8388608),
    constraint metadata_is_at_most_256_kib
        check (pg_column_size(metadata) <= 512 or octet_length(metadata::text) <= 262144),
    constraint tags_are_at_most_16_kib check (octet_length(array_to_string(tags, '')) <= 16384),
    constraint tags_are_at_most_64 check (
        -- `array_position` cannot search an array of several dimensions. The next constraint refuses such an array.
        case when array_ndims(tags) = 1 then cardinality(tags) <= 64 and array_position(tags, null) is null end
    ),
    constraint tags_have_one_dimension check (array_ndims(tags) = 1),
    constraint cron_is_not_every check (ltrim(cron) not ilike '@every%')
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
create unique index schedules_name on reveille.schedules (name);
-- Workers fire schedules in the order of this index. Schedules without a computed next tick come first.
create index schedules_due on reveille.schedules ((coalesce(next_at, '-infinity'::timestamptz)))
    where paused_at is null and error is null;
comment on table reveille.schedules is
    'Schedules, which enqueue recurring jobs. At each tick, one of the workers enqueues the tick''s job. Workers '
    'notice a plain insert or update.';
comment on column reveille.schedules.id is 'The id; the schedule''s jobs have it as schedule_id.';
comment on column reveille.schedules.name is 'The name, 1 to 128 characters.';
comment on column reveille.schedules.cron is
    'The cron text that gives the ticks: five fields, or six with seconds first, or `@daily` and the like; read by the '
    'workers. Null: `every` is set.';
comment on column reveille.schedules.every is
    'The interval between ticks, counted from counted_from; null: `cron` is set.';
comment on column reveille.schedules.time_zone is 'The zone of the cron text, such as Europe/Berlin.';
comment on column reveille.schedules.catch_up is
    'The catch-up for ticks that were missed while no worker was running: `skip` (no job), `one` (a single job for all '
    'missed ticks), `all` (a job for each missed tick).';
comment on column reveille.schedules.kind is 'The kind of the schedule''s jobs.';
comment on column reveille.schedules.payload is 'The payload of the schedule''s jobs.';
comment on column reveille.schedules.queue is 'The queue of the schedule''s jobs.';
comment on column reveille.schedules.priority is
    'The priority of the schedule''s jobs: 0 urgent, 1 high, 2 normal, 3 low.';
comment on column reveille.schedules.max_attempts is
    'The number of failures at which one of the schedule''s jobs becomes a dead job.';
comment on column reveille.schedules.timeout is 'The longest run time of one attempt; null: the worker''s setting.';
comment on column reveille.schedules.key is
    'The key of the schedule''s jobs: what they belong to, such as a tenant, for limits and order per key.';
comment on column reveille.schedules.tags is 'The tags of the schedule''s jobs.';
comment on column reveille.schedules.metadata is
    'The metadata of the schedule''s jobs, to which the schedule''s name and the tick are added.';
comment on column reveille.schedules.counted_from is
    'The time after which ticks count: the last time at which the timing was set or the schedule was resumed.';
comment on column reveille.schedules.next_at is 'The next tick; null while a worker has yet to compute it.';
comment on column reveille.schedules.last_at is 'The last tick for which a job was enqueued.';
comment on column reveille.schedules.paused_at is
    'The time at which the schedule was paused; it enqueues nothing while paused. Null: it is not paused.';
comment on column reveille.schedules.declared_at is
    'The time at which a worker last declared the schedule in its code; null: the schedule is managed by hand.';
comment on column reveille.schedules.error is
    'The reason why the next tick cannot be computed: the cron text or the time zone is invalid.';
comment on column reveille.schedules.created_at is 'The time at which the schedule was added.';
comment on column reveille.schedules.through_middleware is
    'True if the schedule''s jobs pass through middleware. Then only a worker that declares the schedule fires it.';

create table reveille.schedule_declarations (
    schedule_id bigint not null references reveille.schedules (id) on delete cascade,
    worker      bigint not null references reveille.workers (id) on delete cascade,
    primary key (schedule_id, worker)
);
create index schedule_declarations_worker on reveille.schedule_declarations (worker);
comment on table reveille.schedule_declarations is
    'The schedules that live workers declare in their code: one row per schedule and worker.';
comment on column reveille.schedule_declarations.schedule_id is 'The schedule.';
comment on column reveille.schedule_declarations.worker is
    'The worker that declares the schedule; deleting its row in reveille.workers deletes this row too.';

-- This function runs when a schedule's timing changes or the schedule is resumed: from then on, ticks count anew. The
-- function sets `next_at` to null, and a worker computes the next tick, because the database cannot read cron texts.
create function reveille.count_anew() returns trigger
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    new.counted_from := now();
    new.next_at := null;
    new.error := null;
    return new;
end
$$;
comment on function reveille.count_anew() is
    'Counts ticks from now on, when a schedule''s timing changes or the schedule is resumed.';

create trigger count_anew before update on reveille.schedules
    for each row
    when (
        (new.cron, new.every, new.time_zone) is distinct from (old.cron, old.every, old.time_zone)
        or (new.paused_at is null and old.paused_at is not null)
    )
    execute function reveille.count_anew();

create function reveille.tell_of_schedules() returns trigger
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- If the notification buffer is nearly full, the trigger sends nothing. Workers then find the schedule within 30 s,
    -- since they check the schedules without a notification too.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.schedules', '');
    end if;
    return null;
end
$$;
comment on function reveille.tell_of_schedules() is
    'Wakes the workers that fire schedules (NOTIFY) when a schedule''s tick may be due sooner than they expect.';

create trigger tell_of_new after insert on reveille.schedules
    for each row execute function reveille.tell_of_schedules();

-- This trigger does not tell workers when a schedule fires, since firing makes the next tick later.
create trigger tell_of_change after update on reveille.schedules
    for each row
    when (
        coalesce(new.next_at, '-infinity'::timestamptz) < coalesce(old.next_at, '-infinity'::timestamptz)
        or new.counted_from is distinct from old.counted_from
        or (new.error is null and old.error is not null)
    )
    execute function reveille.tell_of_schedules();

create function reveille.schedule(
    name         text,
    kind         text,
    cron         text        default null,
    every        interval    default null,
    time_zone    text        default 'UTC',
    payload      jsonb       default '{}',
    queue        text        default 'default',
    priority     bigint      default 2,
    max_attempts bigint      default null,
    timeout      interval    default null,
    key          text        default null,
    tags         text[]      default null,
    metadata     jsonb       default null,
    catch_up     text        default 'one',
    declared_by  bigint      default null
) returns bigint
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    id bigint;
begin
    if (schedule.cron is null) = (schedule.every is null) then
        raise exception 'a schedule takes either cron or every' using errcode = 'invalid_parameter_value';
    end if;
    if ltrim(schedule.cron) ilike '@every%' then
        raise exception 'a cron text cannot say @every: give the interval as every'
            using errcode = 'invalid_parameter_value', hint = 'For example every => ''5 minutes'', and no cron.';
    end if;
    if schedule.priority not between 0 and 3 then
        raise exception 'priority must be 0 (urgent), 1 (high), 2 (normal) or 3 (low), not %', schedule.priority
            using errcode = 'invalid_parameter_value';
    end if;
    if schedule.max_attempts not between 1 and 2147483647 then
        raise exception 'max_attempts must be 1 to 2147483647, not %', schedule.max_attempts
            using errcode = 'invalid_parameter_value';
    end if;
    if array_ndims(schedule.tags) > 1 then
        raise exception 'tags must be one list, not an array of % dimensions', array_ndims(schedule.tags)
            using errcode = 'invalid_parameter_value', hint = 'Write it like array[''a'', ''b''].';
    end if;
    -- This query fails if Postgres does not know the time zone. Workers have their own lists of time zones. A schedule
    -- whose time zone only Postgres knows is stored, but does not fire until some worker's host knows the time zone.
    perform now() at time zone coalesce(schedule.time_zone, 'UTC');
    insert into reveille.schedules as schedules (
        name, cron, every, time_zone, catch_up, kind, payload, queue, priority, max_attempts, timeout, key, tags,
        metadata, declared_at
    )
    values (
        schedule.name, schedule.cron, schedule.every, coalesce(schedule.time_zone, 'UTC'),
        coalesce(schedule.catch_up, 'one'),
        schedule.kind, coalesce(schedule.payload, '{}'), coalesce(schedule.queue, 'default'),
        coalesce(schedule.priority::smallint, 2::smallint), coalesce(schedule.max_attempts::int, 20), schedule.timeout,
        schedule.key, schedule.tags, schedule.metadata, case when schedule.declared_by is not null then now() end
    )
    on conflict (name) do update
    set cron = excluded.cron,
        every = excluded.every,
        time_zone = excluded.time_zone,
        catch_up = excluded.catch_up,
        kind = excluded.kind,
        payload = excluded.payload,
        queue = excluded.queue,
        priority = excluded.priority,
        max_attempts = excluded.max_attempts,
        timeout = excluded.timeout,
        key = excluded.key,
        tags = excluded.tags,
        metadata = excluded.metadata,
        declared_at = excluded.declared_at,
        error = null
    returning schedules.id into id;
    if schedule.declared_by is not null then
        insert into reveille.schedule_declarations (schedule_id, worker)
        values (id, schedule.declared_by)
        on conflict do nothing;
    end if;
    return id;
end
$$;
comment on function reveille.schedule(
    text, text, text, interval, text, jsonb, text, bigint, bigint, interval, text, text[], jsonb, text, bigint
) is
    'Adds a schedule, or changes the schedule of that name: `select reveille.schedule(''nightly-report'', kind => '
    '''report'', cron => ''0 3 * * *'', time_zone => ''Europe/Berlin'')`. The next tick stays unless the timing '
    'changes; a paused schedule stays paused. Returns the schedule''s id. declared_by is for workers, which declare '
    'the schedules of their code.';

create function reveille.unschedule(name text) returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    delete from reveille.schedules where schedules.name = unschedule.name;
    return found;
end
$$;
comment on function reveille.unschedule(text) is
    'Removes a schedule; the jobs that it has enqueued stay. Returns true if the schedule existed. A schedule that a '
    'worker declares in its code returns when that worker starts again.';

create function reveille.pause_schedule(name text) returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update reveille.schedules set paused_at = coalesce(paused_at, now()) where schedules.name = pause_schedule.name;
    return found;
end
$$;
comment on function reveille.pause_schedule(text) is
    'Pauses a schedule: it enqueues nothing until it is resumed. Returns true if the schedule exists.';

create function reveille.resume_schedule(name text) returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update reveille.schedules set paused_at = null where schedules.name = resume_schedule.name;
    return found;
end
$$;
comment on function reveille.resume_schedule(text) is
    'Resumes a schedule from its next tick after now; ticks that passed during the pause are skipped. Returns true if '
    'the schedule exists.';

create function reveille.trigger_schedule(name text) returns bigint
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    id bigint;
begin
    insert into reveille.jobs (kind, payload, queue, priority, max_attempts, timeout, key, tags, metadata, schedule_id)
    select
        kind, payload, queue, priority, max_attempts, timeout, key, tags,
        coalesce(metadata, '{}') || jsonb_build_object('schedule', schedules.name), schedules.id
    from reveille.schedules
    where schedules.name = trigger_schedule.name
    returning jobs.id into id;
    return id;
end
$$;
comment on function reveille.trigger_schedule(text) is
    'Enqueues one job of a schedule now, even if the schedule is paused; its next tick stays. Returns the job''s id; '
    'null if no schedule has this name.';
