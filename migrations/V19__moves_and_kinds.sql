-- A job that can be neither started, skipped nor cancelled dies alone. See docs/design/odd-rows.md.

create or replace function reveille.start_blocked(ids bigint[]) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    with started as (
        delete from reveille.blocked_jobs where blocked_jobs.id = any (ids) returning *
    ), stored as (
        insert into reveille.jobs (
            id, queue, kind, payload, priority, max_attempts, available_at, created_at, key, timeout, tags,
            metadata, parent_id, schedule_id, awaited, linked
        )
        overriding system value
        select
            id, queue, kind, payload, priority, max_attempts,
            -- A due time before now could be below a low-water mark.
            greatest(available_at, clock_timestamp() + coalesce(delay, interval '0')), created_at, key, timeout,
            tags, metadata, parent_id, schedule_id, awaited, true
        from started
        order by id
    )
    update reveille.workflows
    set blocked = workflows.blocked - of_workflow.jobs
    from (select workflow, count(*) as jobs from started where workflow is not null group by workflow)
        as of_workflow (id, jobs)
    where workflows.id = of_workflow.id;
end
$$;
comment on function reveille.start_blocked(bigint[]) is
    'Moves blocked jobs to reveille.jobs. The caller has locked the rows of the jobs, and those of their workflows.';

create function reveille.bury_blocked(id bigint, error text, whole boolean) returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    fresh bigint;
    message text := error;
    is_awaited boolean;
    code text;
begin
    if not whole then
        message := message || '; its other columns cannot be read and are left out';
    end if;
    if exists (select from reveille.dead_jobs where dead_jobs.id = bury_blocked.id) then
        fresh := reveille.fresh_job_id();
        message := message || format('; its id was %s, which another dead job has', bury_blocked.id);
    end if;
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, key, timeout,
        tags, metadata, errors, parent_id, schedule_id, reason, linked
    )
    select
        coalesce(fresh, blocked_jobs.id), queue, kind, case when whole then payload else 'null' end, priority, 0, 0,
        max_attempts, clock_timestamp(), created_at, key, timeout, case when whole then tags end,
        case when whole then metadata end,
        jsonb_build_array(
            jsonb_build_object('at', now(), 'attempt', 0, 'reason', 'undecodable', 'error', message)
        ),
        parent_id, schedule_id, 'undecodable', true
    from reveille.blocked_jobs
    where blocked_jobs.id = bury_blocked.id;
    delete from reveille.blocked_jobs where blocked_jobs.id = bury_blocked.id returning awaited into is_awaited;
    if is_awaited and pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.finished', bury_blocked.id || ' dead');
    end if;
    perform reveille.note_end(bury_blocked.id, 'dead', true);
    return true;
exception when others or assert_failure then
    get stacked diagnostics code = returned_sqlstate;
    if reveille.says_nothing_of_a_row(code) then
        raise;
    end if;
    return false;
end
$$;
comment on function reveille.bury_blocked(bigint, text, boolean) is
    'Makes a dead job of a blocked job, with a fresh id if another dead job has its id. Returns false, and changes '
    'nothing, if the server refuses this. For reveille.move_blocked.';

create function reveille.says_nothing_of_a_row(code text) returns boolean
    language sql immutable
as $$
    select pg_catalog.left(code, 2) operator(pg_catalog.=) any (array[
        '08', '0A', '25', '26', '28', '34', '3D', '3F', '40', '42', '53', '55', '57'
    ])
$$;
comment on function reveille.says_nothing_of_a_row(text) is
    'True if the error with this SQLSTATE concerns the connection, rights, the schema, resources or concurrent '
    'sessions, so that trying again may help.';

create function reveille.move_blocked(ids bigint[], fate text) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    half constant int := cardinality(ids) / 2;
    code text;
    message text;
begin
    if coalesce(cardinality(ids), 0) = 0 then
        return;
    end if;
    begin
        if fate = 'started' then
            perform reveille.start_blocked(ids);
        else
            perform reveille.end_blocked(ids, fate);
        end if;
        return;
    -- `others` leaves out the error of an `assert`, such as one in a trigger.
    exception when others or assert_failure then
        get stacked diagnostics code = returned_sqlstate, message = message_text;
        if reveille.says_nothing_of_a_row(code) then
            raise;
        end if;
    end;
    if half > 0 then
        perform reveille.move_blocked(ids[:half], fate);
        perform reveille.move_blocked(ids[half + 1:], fate);
    else
        message := format(
            '%s: %s (SQLSTATE %s)',
            case fate when 'started' then 'cannot be stored in reveille.jobs' else 'cannot be ' || fate end, message,
            code
        );
        -- A job that cannot die either stays blocked.
        if not reveille.bury_blocked(ids[1], message, true) then
            perform reveille.bury_blocked(ids[1], message, false);
        end if;
    end if;
end
$$;
comment on function reveille.move_blocked(bigint[], text) is
    'Moves blocked jobs to where they belong: `started`, `skipped` or `cancelled`. A job that the server refuses there '
    'becomes a dead job. The caller has locked the rows of the jobs, and those of their workflows.';

create function reveille.cancel_or_bury(ids bigint[]) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    half constant int := cardinality(ids) / 2;
    code text;
    message text;
begin
    begin
        perform reveille.cancel_live(ids);
        return;
    exception when others or assert_failure then
        get stacked diagnostics code = returned_sqlstate, message = message_text;
        if reveille.says_nothing_of_a_row(code) then
            raise;
        end if;
    end;
    if half > 0 then
        perform reveille.cancel_or_bury(ids[:half]);
        perform reveille.cancel_or_bury(ids[half + 1:]);
    else
        -- If the job cannot die either, or runs, it goes on.
        perform reveille.bury_unclaimed(id, code, 'cannot be cancelled: ' || message, true)
        from reveille.jobs
        where id = ids[1] and reserved_at is null;
    end if;
end
$$;
comment on function reveille.cancel_or_bury(bigint[]) is
    'Cancels live jobs, as reveille.cancel_live does. A waiting job whose cancel the server refuses becomes a dead '
    'job.';

create or replace function reveille.settle_blocked(ids bigint[]) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    starts bigint[];
    skips bigint[];
    cancels bigint[];
begin
    select
        array_agg(blocked.id order by blocked.id) filter (where blocked.needs <= 0 and goes_on),
        array_agg(blocked.id) filter (where blocked.needs > 0 and blocked.chances < blocked.needs and goes_on),
        array_agg(blocked.id) filter (where (blocked.needs <= 0 or blocked.chances < blocked.needs) and not goes_on)
    into starts, skips, cancels
    from reveille.blocked_jobs as blocked
    cross join lateral (
        select blocked.cleanup or not exists (
            select from reveille.workflows where workflows.id = blocked.workflow and workflows.state = 'cancelling'
        )
    ) as is_to_run (goes_on)
    where blocked.id = any (ids)
        and not exists (
            select from reveille.workflows
            where workflows.id = blocked.workflow and not workflows.sealed and workflows.state <> 'cancelling'
        );
    perform reveille.move_blocked(starts, 'started');
    perform reveille.move_blocked(skips, 'skipped');
    perform reveille.move_blocked(cancels, 'cancelled');
end
$$;

create or replace function reveille.cancel_members(most int) returns int
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
    set jit = off
as $$
#variable_conflict use_column
declare
    workflow record;
    up_to text;
    first_left text;
    pending bigint[];
    cleanup bigint[];
    blocked bigint[];
    live bigint[];
    seen int := 0;
    passed int;
begin
    for workflow in
        select id, cancelled_up_to from reveille.workflows
        where state = 'cancelling' and finished_at is null
            and (jobs = 0 or exists (
                select from reveille.workflow_jobs as members
                where members.workflow = workflows.id and members.name > coalesce(cancelled_up_to, '')
            ))
        order by id
        limit 10
        for no key update skip locked
    loop
        select
            max(name), count(*), array_agg(job) filter (where not has_ended),
            array_agg(job) filter (where not has_ended and cleanup)
        into up_to, passed, pending, cleanup
        from (
            select
                job, name, cleanup, coalesce(outcome, '') in ('completed', 'cancelled', 'skipped') as has_ended
            from reveille.workflow_jobs
            where workflow_jobs.workflow = workflow.id and name > coalesce(workflow.cancelled_up_to, '')
            order by name
            limit most - seen
        ) as slice;
        blocked := array(
            select id from reveille.blocked_jobs where id = any (pending) order by id for update skip locked
        );
        live := array(select id from reveille.jobs where id = any (pending) order by id for update skip locked);

        -- If another session has locked a job, a later call goes on from that job.
        select min(members.name) into first_left
        from reveille.workflow_jobs as members
        where members.job = any (pending) and members.job <> all (blocked || live)
            and (
                exists (select from reveille.jobs where id = members.job)
                or exists (select from reveille.blocked_jobs where id = members.job)
            );
        if first_left is not null then
            select max(members.name), count(*) into up_to, passed
            from reveille.workflow_jobs as members
            where members.workflow = workflow.id and members.name > coalesce(workflow.cancelled_up_to, '')
                and members.name < first_left;
        end if;

        -- A job that is cleanup may have waited for the seal alone.
        perform reveille.settle_blocked(array(select unnest(blocked) intersect select unnest(cleanup)));
        perform reveille.move_blocked(array(select unnest(blocked) except select unnest(cleanup)), 'cancelled');
        perform reveille.cancel_or_bury(array(select unnest(live) except select unnest(cleanup)));
        seen := seen + passed;
        update reveille.workflows set cancelled_up_to = coalesce(up_to, cancelled_up_to) where id = workflow.id;
        perform reveille.update_workflows(array[workflow.id]);
        exit when seen >= most;
    end loop;
    return seen;
end
$$;

create function reveille.make_due(ids bigint[]) returns int
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    half constant int := cardinality(ids) / 2;
    made int;
    code text;
begin
    begin
        update reveille.jobs set available_at = least(available_at, clock_timestamp()) where id = any (ids);
        get diagnostics made = row_count;
        return made;
    exception when others or assert_failure then
        get stacked diagnostics code = returned_sqlstate;
        if reveille.says_nothing_of_a_row(code) then
            raise;
        end if;
    end;
    if half = 0 then
        return 0;
    end if;
    return reveille.make_due(ids[:half]) + reveille.make_due(ids[half + 1:]);
end
$$;
comment on function reveille.make_due(bigint[]) is
    'Makes waiting jobs due now, since an event has come. A job that the server refuses to change goes on at the end '
    'of its wait. The caller has locked the rows of the jobs. Returns the number of changed jobs.';

-- A worker that decrypts the result of a job has to know the kind of the job, even if no history is kept.
alter table reveille.workflow_jobs add column kind text;
comment on column reveille.workflow_jobs.kind is 'The kind of the job.';

create or replace function reveille.store_linked_jobs(workflow bigint, jobs jsonb, schedule_id bigint default null)
    returns bigint[]
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_nestloop = off
    set jit = off
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    count constant int := jsonb_array_length(jobs);
    given_workflow constant bigint := workflow;
    given_schedule constant bigint := schedule_id;
    is_sealed boolean := true;
    ids bigint[];
    existing record;
    blocked bigint[] := '{}';
    one bigint;
    has_waiters boolean := false;
    added record;
begin
    -- The rows of jobs are locked first, in the order of their ids, and the row of the workflow after them: a handler
    -- may complete its job in a transaction, and add to the workflow in the same one. Blocked jobs of the workflow are
    -- locked last, as the seal locks them. They move only under the lock of the workflow.
    for existing in
        select distinct on (named.id) named.id, edges.direction
        from reveille.read_dependencies(jobs) as edges
        cross join lateral (
            select coalesce(edges.id, (
                select members.job from reveille.workflow_jobs as members
                where members.workflow = given_workflow and members.name = edges.name
            ))
        ) as named (id)
        where named.id is not null
        order by named.id
    loop
        if given_workflow is not null
            and exists (select from reveille.blocked_jobs where blocked_jobs.id = existing.id)
        then
            blocked := blocked || existing.id;
        elsif existing.direction = 'after' then
            perform reveille.link_prerequisite(existing.id);
        end if;
    end loop;
    if given_workflow is not null then
        -- This lock keeps workers from applying ends of this workflow until the caller commits.
        select case when workflows.state = 'running' or workflows.state = 'stalled' then workflows.sealed end
        into is_sealed
        from reveille.workflows
        where workflows.id = given_workflow
        for no key update;
        if is_sealed is null then
            raise exception 'workflow % %', given_workflow, coalesce(
                (select 'is ' || workflows.state from reveille.workflows where workflows.id = given_workflow),
                'does not exist'
            ) using errcode = 'object_not_in_prerequisite_state', hint = 'Enqueue another workflow.';
        end if;
        foreach one in array blocked loop
            perform reveille.link_prerequisite(one);
        end loop;
    end if;
    ids := array(select nextval('reveille.jobs_id_seq') from generate_series(1, count));

    begin
        with named as materialized (
            select given.job ->> 'name' as name, ids[given.place] as id
            from jsonb_array_elements(jobs) with ordinality as given (job, place)
        )
        insert into reveille.dependencies (waiter, on_job, label, fires_on, on_dead)
        select
            case edges.direction when 'after' then ids[edges.place] else target.id end,
            case edges.direction when 'after' then target.id else ids[edges.place] end,
            coalesce(edges.label, case edges.direction
                when 'after' then coalesce(edges.name, edges.id::text)
                else jobs -> (edges.place - 1)::int ->> 'name'
            end),
            edges.fires_on, edges.on_dead
        from reveille.read_dependencies(jobs) as edges
        left join named on named.name = edges.name
        cross join lateral (
            select coalesce(named.id, edges.id, (
                select members.job from reveille.workflow_jobs as members
                where members.workflow = given_workflow and members.name = edges.name
            ))
        ) as target (id);
    exception when unique_violation then
        raise exception 'a job would read two results under one label'
            using errcode = 'invalid_parameter_value', hint = 'Give each prerequisite of a job a label of its own.';
    end;
    -- Blocked jobs that wait for a new job too.
    for added in
        select
            dependencies.waiter, count(*) as dependencies,
            bool_and(dependencies.fires_on in ('any', 'cancelled')) as cleanup
        from reveille.dependencies
        left join unnest(ids) as new (id) on new.id = dependencies.waiter
        where dependencies.on_job = any (ids) and new.id is null
        group by dependencies.waiter
        order by dependencies.waiter
    loop
        has_waiters := true;
        update reveille.blocked_jobs
        set needs = needs + case when needs_one then 0 else added.dependencies end,
            chances = chances + added.dependencies,
            cleanup = added.cleanup and (cleanup or not exists (
                select from reveille.dependencies as known
                where known.waiter = added.waiter and known.on_job <> all (ids)
            ))
        where blocked_jobs.id = added.waiter;
        if not found then
            raise exception 'job % has started or ended, so it cannot wait for another job',
                (select to_json(name) from reveille.workflow_jobs where job = added.waiter)
                using errcode = 'object_not_in_prerequisite_state';
        end if;
        update reveille.workflow_jobs as members
        set cleanup = blocked_jobs.cleanup
        from reveille.blocked_jobs
        where members.job = added.waiter and blocked_jobs.id = added.waiter
            and members.cleanup <> blocked_jobs.cleanup;
    end loop;

    if has_waiters and reveille.wait_in_a_circle(ids) then
        raise exception 'a job would wait for itself, by way of jobs that are blocked already'
            using errcode = 'invalid_parameter_value';
    end if;

    with waiting as (
        select dependencies.waiter, count(*) as dependencies,
            bool_and(dependencies.fires_on in ('any', 'cancelled')) as cleanup
        from reveille.dependencies
        where dependencies.waiter = any (ids)
        group by dependencies.waiter
    )
    insert into reveille.blocked_jobs (
        id, queue, kind, payload, priority, max_attempts, needs, chances, needs_one, workflow, cleanup, available_at,
        delay, key, timeout, tags, metadata, parent_id, schedule_id
    )
    select
        ids[new.place], new.queue, new.kind, new.payload, new.priority, new.max_attempts,
        case when waits.for_first then 1 else waits.dependencies end, waits.dependencies, waits.for_first,
        given_workflow, coalesce(waiting.cleanup, false),
        case when new.job ->> 'available_at' is not null then new.due end,
        case when new.job ->> 'delay' is not null then new.due - now() end,
        new.key, new.timeout, new.tags, new.metadata, new.parent_id, given_schedule
    from reveille.read_json_jobs(reveille.plain_jobs(jobs), false) as new
    left join waiting on waiting.waiter = ids[new.place]
    cross join lateral (
        select
            coalesce(jobs -> (new.place - 1)::int ->> 'wait_for', 'all') = 'first',
            coalesce(waiting.dependencies, 0)::int
    ) as waits (for_first, dependencies)
    where waits.dependencies > 0
        or not is_sealed and jsonb_typeof(jobs -> (new.place - 1)::int -> 'after') = 'array';

    insert into reveille.jobs (
        id, queue, kind, payload, priority, max_attempts, available_at, key, timeout, tags, metadata, parent_id,
        schedule_id, linked
    )
    overriding system value
    select
        ids[new.place], new.queue, new.kind, new.payload, new.priority, new.max_attempts, new.due, new.key, new.timeout,
        new.tags, new.metadata, new.parent_id, given_schedule, true
    from reveille.read_json_jobs(reveille.plain_jobs(jobs), false) as new
    where (select blocked_jobs.id from reveille.blocked_jobs where blocked_jobs.id = ids[new.place]) is null
    order by new.place;

    if given_workflow is not null then
        insert into reveille.workflow_jobs (job, workflow, name, kind, cleanup)
        select
            ids[given.place], given_workflow, given.job ->> 'name', given.job ->> 'kind',
            coalesce((select cleanup from reveille.blocked_jobs where blocked_jobs.id = ids[given.place]), false)
        from jsonb_array_elements(jobs) with ordinality as given (job, place);
        update reveille.workflows
        set jobs = workflows.jobs + count,
            blocked = workflows.blocked
                + (select count(*) from reveille.blocked_jobs where blocked_jobs.id = any (ids))
        where workflows.id = given_workflow;
        perform reveille.update_workflows(array[given_workflow]);
    end if;
    return ids;
end
$$;

-- A constraint's error would name no limit, and show a part of the payload.
create or replace function reveille.emit(event text, payload jsonb default 'null') returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    given constant jsonb := coalesce(emit.payload, 'null');
    size constant int := octet_length(given::text);
begin
    if coalesce(octet_length(emit.event), 0) not between 1 and 512 then
        raise exception 'an event''s name must have 1 to 512 bytes, not %', coalesce(octet_length(emit.event), 0)
            using errcode = 'invalid_parameter_value';
    end if;
    if starts_with(emit.event, 'reveille:') then
        raise exception 'names of events that begin with "reveille:" are reserved'
            using errcode = 'invalid_parameter_value', hint = 'Give the event another name.';
    end if;
    if size > 8192 then
        raise exception 'the payload of event % has % bytes, and the limit is 8192', to_json(emit.event), size
            using errcode = 'invalid_parameter_value', hint = 'Keep large data elsewhere and pass a reference.';
    end if;
    insert into reveille.events (name, payload) values (emit.event, given) on conflict do nothing;
    if not found then
        return false;
    end if;
    -- A worker pairs the event with the jobs that wait for it. If no notification comes, the workers' next heartbeats
    -- find the event.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.linked', '');
    end if;
    return true;
end
$$;
