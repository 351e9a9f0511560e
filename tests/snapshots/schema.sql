CREATE SCHEMA reveille;

CREATE FUNCTION reveille.add_to_workflow(workflow bigint, jobs jsonb) RETURNS bigint[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    refusal text;
begin
    perform reveille.check_may_enqueue();
    if workflow is null then
        raise exception 'workflow must not be null' using errcode = 'null_value_not_allowed';
    end if;
    if (jsonb_typeof(jobs) = 'array') is not true then
        raise exception 'jobs must be an array of jobs, not %', coalesce(jsonb_typeof(jobs), 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    if jsonb_array_length(jobs) > 10000 then
        raise exception 'a call takes at most 10000 jobs, not %', jsonb_array_length(jobs)
            using errcode = 'program_limit_exceeded',
                  hint = 'In one transaction, call reveille.open_workflow, then reveille.add_to_workflow for each '
                         '10000 jobs, then reveille.seal_workflow.';
    end if;
    refusal := reveille.refusal_of_linked_jobs(workflow, jobs, reveille.largest_payload());
    if refusal is not null then
        raise exception '%', refusal using errcode = 'invalid_parameter_value';
    end if;
    return reveille.store_linked_jobs(
        workflow, jobs, (select workflows.schedule_id from reveille.workflows where workflows.id = workflow)
    );
end
$$;

COMMENT ON FUNCTION reveille.add_to_workflow(workflow bigint, jobs jsonb) IS 'Adds up to 10,000 jobs to a workflow that has not ended, in the caller''s transaction. The keys of a job are those of reveille.enqueue_json without the unique key, and `name`, which is required; `after`: the names of the jobs that it waits for; `before`: the names of new or blocked jobs that are to wait for it too; `fires_on`, `on_dead` and `wait_for` as in reveille.enqueue_after. An element of `after` or `before` can be an object with the keys `name`, `label`, `fires_on` and `on_dead`. In a workflow that is not sealed, a job with the key `after`, even an empty one, starts only after the seal. Returns the ids, in the order of the jobs.';

CREATE FUNCTION reveille.analyze_unknown_tables() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION reveille.analyze_unknown_tables() IS 'Analyzes the tables of live and dead jobs if they are large and have no statistics. Returns the number of tables analyzed. Workers call it.';

CREATE FUNCTION reveille.apply_linked_ends(most integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
    places tid[];
    taken bigint[];
    touched bigint[];
    waiters bigint[];
    over bigint[];
    wanted int;
    decided int;
    applied int;
    cancelled int;
begin
    -- The statements that note ends look up the workflow. An end that a program has inserted by hand may lack it, and
    -- would not be counted.
    with lacking as materialized (
        select ends.ctid as place, (
            select members.workflow from reveille.workflow_jobs as members
            where members.job = ends.job and exists (select from reveille.workflows where id = members.workflow)
        ) as workflow
        from reveille.linked_ends as ends
        where ends.workflow is null
        order by ends.ended_at
        limit most
        for update skip locked
    )
    update reveille.linked_ends as ends set workflow = lacking.workflow
    from lacking
    where ends.ctid = lacking.place and lacking.workflow is not null;

    with of_members as materialized (
        select ends.ctid as place, ends.job, ends.workflow
        from reveille.linked_ends as ends
        -- The workflow first: otherwise an end would stay locked whose workflow another worker has locked, and that
        -- worker could not apply the end in its next call. A join would sort all ends that wait, in each call.
        cross join lateral (
            select from reveille.workflows where workflows.id = ends.workflow for update skip locked
        ) as locked
        where ends.workflow is not null
        order by ends.ended_at
        limit most
        for update of ends skip locked
    ), of_others as materialized (
        select ends.ctid as place, ends.job
        from reveille.linked_ends as ends
        where ends.workflow is null
            and not exists (
                select from reveille.workflow_jobs as members
                where members.job = ends.job and exists (select from reveille.workflows where id = members.workflow)
            )
        order by ends.ended_at
        limit most
        for update skip locked
    )
    select
        array_agg(ends.place), array_agg(ends.job),
        array_agg(distinct ends.workflow) filter (where ends.workflow is not null)
    into places, taken, touched
    from (select place, job, workflow from of_members union all select place, job, null from of_others) as ends;

    if taken is not null then
        -- No other session changes the rows of these members and of the dependencies on these jobs, since this session
        -- has locked the workflows and the ends. So the rows are found again by their places. With `offset 0`, and as
        -- scalar queries, other rows are found from the ends by indexes, whatever the planner expects.
        with changed as materialized (
            select
                members.place, ends.workflow, members.outcome as before, outcomes.outcome, ends.result,
                ends.was_blocked, ends.ended_at
            from unnest(places) as taken (place)
            cross join lateral (
                select * from reveille.linked_ends where ctid = taken.place and workflow is not null offset 0
            ) as ends
            cross join lateral (
                select ctid as place, outcome from reveille.workflow_jobs where job = ends.job offset 0
            ) as members
            cross join lateral (
                select case ends.outcome when 'revived' then null when 'purged' then 'cancelled' else ends.outcome end
            ) as outcomes (outcome)
            where members.outcome is distinct from outcomes.outcome or ends.was_blocked or ends.outcome = 'revived'
        ), noted as (
            update reveille.workflow_jobs as members
            set outcome = changed.outcome,
                result = changed.result,
                ended_at = case when changed.outcome is not null then changed.ended_at end
            from changed
            where members.ctid = changed.place
        )
        update reveille.workflows
        set blocked = workflows.blocked - counts.blocked,
            completed = workflows.completed + counts.completed,
            dead = workflows.dead + counts.dead,
            cancelled = workflows.cancelled + counts.cancelled,
            skipped = workflows.skipped + counts.skipped,
            -- A revived job of a workflow that is being cancelled must be passed once more.
            cancelled_up_to = case when not counts.revives then workflows.cancelled_up_to end
        from (
            select
                workflow, bool_or(outcome is null) as revives,
                count(*) filter (where was_blocked) as blocked,
                count(*) filter (where outcome = 'completed' and before is distinct from outcome) as completed,
                count(*) filter (where outcome = 'dead') - count(*) filter (where before = 'dead') as dead,
                count(*) filter (where outcome = 'cancelled' and before is distinct from outcome) as cancelled,
                count(*) filter (where outcome = 'skipped' and before is distinct from outcome) as skipped
            from changed
            group by workflow
        ) as counts
        where workflows.id = counts.workflow;

        -- The rows of the waiting jobs are locked here, and lowered. Whether a job starts is decided in a later
        -- statement, which sees what other sessions have lowered before.
        with due as materialized (
            select found.waiter, found.place, found.state
            from unnest(places) as taken (place)
            cross join lateral (
                select job, outcome from reveille.linked_ends where ctid = taken.place offset 0
            ) as ends
            cross join lateral (
                select
                    waiter, ctid as place, reveille.dependency_state(fires_on, on_dead, ends.outcome) as state
                from reveille.dependencies
                where on_job = ends.job and state in ('open', 'held')
                    and state <> reveille.dependency_state(fires_on, on_dead, ends.outcome)
                offset 0
            ) as found
            where (select blocked_jobs.id from reveille.blocked_jobs where blocked_jobs.id = found.waiter) is not null
            limit most + 1
        ), locked as materialized (
            select id from reveille.blocked_jobs
            where id = any (array(select distinct due.waiter from due))
            order by id
            for update skip locked
        ), decided as materialized (
            select due.* from due where due.waiter = any (array(select locked.id from locked)) limit most
        ), noted as (
            update reveille.dependencies set state = decided.state
            from decided
            where dependencies.ctid = decided.place
        ), lowered as (
            update reveille.blocked_jobs
            set needs = needs - sums.met, chances = chances - sums.decided
            from (
                select
                    waiter, (count(*) filter (where state = 'met'))::int as met,
                    (count(*) filter (where state in ('met', 'skipped')))::int as decided
                from decided
                group by waiter
            ) as sums
            where blocked_jobs.id = sums.waiter
            returning blocked_jobs.id
        )
        select
            (select array_agg(id order by id) from lowered), (select count(*) from due), (select count(*) from decided)
        into waiters, wanted, decided;
        perform reveille.settle_blocked(waiters) where waiters is not null;

        if decided < wanted then
            -- These ends have more than `most` waiting jobs, or other sessions have locked some of these jobs. The ends
            -- are looked at after all others, so that they hold up none.
            with unfinished as (
                update reveille.linked_ends as ends set ended_at = clock_timestamp(), was_blocked = false
                where ends.job = any (taken) and exists (
                    select from reveille.dependencies
                    join reveille.blocked_jobs on blocked_jobs.id = dependencies.waiter
                    where dependencies.on_job = ends.job and dependencies.state in ('open', 'held')
                        and dependencies.state
                            <> reveille.dependency_state(dependencies.fires_on, dependencies.on_dead, ends.outcome)
                )
                returning ends.job
            )
            select array(select unnest(taken) except select job from unfinished) into taken;
        end if;

        perform reveille.emit_ends(taken);
        with gone as (
            delete from reveille.linked_ends as ends using unnest(places) as taken (place)
            where ends.ctid = taken.place
            returning ends.job, ends.outcome, ends.workflow
        ), over as materialized (
            select job, workflow from gone where outcome in ('completed', 'cancelled', 'skipped', 'purged')
        ), forgotten as (
            -- The dependencies of a workflow stay until its row goes.
            delete from reveille.dependencies
            where waiter = any (array(select job from over where workflow is null))
                and not (
                    fires_on = 'dead' and state = 'met'
                    and exists (select from reveille.dead_jobs where dead_jobs.id = dependencies.on_job)
                )
        ), settled_deaths as (
            -- A dependency that a dead job has met stays while that job can be revived (reveille.retry), even if the
            -- job that waited has ended.
            delete from reveille.dependencies
            where on_job = any (array(select job from over))
                and fires_on = 'dead' and state = 'met'
                and not exists (select from reveille.blocked_jobs where blocked_jobs.id = dependencies.waiter)
                and not exists (select from reveille.jobs where jobs.id = dependencies.waiter)
                and not exists (select from reveille.dead_jobs where dead_jobs.id = dependencies.waiter)
                and not exists (select from reveille.workflow_jobs where workflow_jobs.job = dependencies.waiter)
        )
        select count(*), array_agg(gone.job) filter (where gone.outcome in ('completed', 'cancelled', 'purged'))
        into applied, over
        from gone;
        perform reveille.forget_steps(over) where over is not null;
        perform reveille.update_workflows(touched) where touched is not null;
    end if;
    cancelled := reveille.cancel_members(most);
    return coalesce(applied + decided, 0) + cancelled;
end
$$;

COMMENT ON FUNCTION reveille.apply_linked_ends(most integer) IS 'Applies up to `most` ends of linked jobs: starts or skips the jobs that wait for them, and counts them in their workflows. Cancels up to `most` jobs of workflows that are being cancelled. Returns the number of changes. Call this again until it returns 0. For workers.';

CREATE FUNCTION reveille.await(id bigint, OUT state text, OUT reason text, OUT result jsonb, OUT errors jsonb) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
begin
    update reveille.blocked_jobs set awaited = true where blocked_jobs.id = await.id and not blocked_jobs.awaited;
    update reveille.jobs set awaited = true where jobs.id = await.id and not jobs.awaited;
    -- The queries are separate, because each query then sees everything that was committed before it. If the first two
    -- queries do not find the job, the job has ended, and one of the queries after them finds the ending.
    perform from reveille.blocked_jobs where blocked_jobs.id = await.id;
    if found then
        state := 'live';
        return;
    end if;
    select 'live', jobs.errors into state, errors from reveille.jobs where jobs.id = await.id;
    if found then
        return;
    end if;
    select 'dead', dead.reason, dead.errors into state, reason, errors
    from reveille.dead_jobs as dead where dead.id = await.id;
    if found then
        return;
    end if;
    select ended.outcome, ended.result, ended.errors into state, result, errors
    from reveille.finished_jobs as ended where ended.id = await.id;
    if found then
        return;
    end if;
    select ended.outcome, ended.result, ended.errors into state, result, errors
    from reveille.ends as ended where ended.id = await.id
    order by ended.ended_at desc limit 1;
    if found then
        return;
    end if;
    -- None of these queries finds a job that was revived between two of them, so the live jobs are queried once more.
    state := case when exists (select from reveille.jobs where jobs.id = await.id) then 'live' else 'unknown' end;
end
$$;

COMMENT ON FUNCTION reveille.await(id bigint, OUT state text, OUT reason text, OUT result jsonb, OUT errors jsonb) IS 'Returns the state of a job: `live`, `completed` (with its result), `cancelled`, `dead` (with the reason) or `unknown`. If the job is live, its end will be notified on the channel reveille.finished, as the job''s id and `completed`, `cancelled` or `dead`. Listen on the channel first, then call this function. Call it again after a notification, since any session can send one.';

CREATE FUNCTION reveille.bury_blocked(id bigint, error text, whole boolean) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

COMMENT ON FUNCTION reveille.bury_blocked(id bigint, error text, whole boolean) IS 'Makes a dead job of a blocked job, with a fresh id if another dead job has its id. Returns false, and changes nothing, if the server refuses this. For reveille.move_blocked.';

CREATE FUNCTION reveille.bury_unclaimed(id bigint, code text, error text, whole boolean) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    fresh bigint;
    message text := format('cannot be claimed: %s (SQLSTATE %s)', error, code);
    ended record;
begin
    if exists (select from reveille.dead_jobs where dead_jobs.id = bury_unclaimed.id) then
        fresh := reveille.fresh_job_id();
        message := message || format('; its id was %s, which another dead job has', bury_unclaimed.id);
    end if;
    if not whole then
        message := message || '; its other columns cannot be read and are left out';
    end if;
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, unique_key,
        unique_until, key, timeout, tags, metadata, errors, progress, parent_id, schedule_id, reason, worker, linked
    )
    select
        coalesce(fresh, jobs.id), jobs.queue, jobs.kind, case when whole then jobs.payload else 'null' end,
        jobs.priority, jobs.attempts, jobs.failures, jobs.max_attempts, jobs.available_at, jobs.created_at,
        jobs.unique_key, jobs.unique_until, jobs.key, jobs.timeout, case when whole then jobs.tags end,
        case when whole then jobs.metadata end,
        case when whole and jsonb_typeof(jobs.errors) = 'array' then jobs.errors else '[]' end
        || jsonb_build_object('at', now(), 'attempt', jobs.attempts, 'reason', 'undecodable', 'error', message),
        case when whole then jobs.progress end, jobs.parent_id, jobs.schedule_id, 'undecodable', null,
        jobs.linked
    from reveille.jobs
    where jobs.id = bury_unclaimed.id;
    delete from reveille.jobs where jobs.id = bury_unclaimed.id
    returning jobs.queue, jobs.awaited, jobs.linked into ended;
    if not found then
        raise exception using errcode = 'RVNO0';
    end if;
    perform reveille.ring(array[ended.queue]);
    if ended.awaited and pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.finished', bury_unclaimed.id || ' dead');
    end if;
    if ended.linked then
        perform reveille.note_end(bury_unclaimed.id, 'dead');
    end if;
    return true;
exception when others then
    return false;
end
$$;

COMMENT ON FUNCTION reveille.bury_unclaimed(id bigint, code text, error text, whole boolean) IS 'Makes a dead job of a job that cannot be claimed. Returns true if this succeeds. For reveille.isolate_job.';

CREATE FUNCTION reveille.can_be_sent(queue text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
begin
    if queue operator(pg_catalog.!~) '[^\x01-\x7f]' then
        return true;
    end if;
    perform pg_catalog.convert_to(queue, 'UTF8');
    return true;
exception when character_not_in_repertoire or untranslatable_character then
    return false;
end
$$;

COMMENT ON FUNCTION reveille.can_be_sent(queue text) IS 'True if a queue''s name can be sent to a worker by NOTIFY. A notification that the server cannot convert to UTF-8 breaks the session that receives it.';

CREATE FUNCTION reveille.cancel(id bigint) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    reserved timestamptz;
begin
    if reveille.end_blocked(array[cancel.id], 'cancelled') > 0 then
        return 'cancelled';
    end if;
    select reserved_at into reserved from reveille.jobs where jobs.id = cancel.id for update;
    if found then
        perform reveille.cancel_live(array[cancel.id]);
        return case when reserved is null then 'cancelled' else 'requested' end;
    end if;
    return case
        when exists (select from reveille.dead_jobs where dead_jobs.id = cancel.id) then 'dead'
        when exists (select from reveille.finished_jobs where finished_jobs.id = cancel.id) then 'finished'
        else 'unknown'
    end;
end
$$;

COMMENT ON FUNCTION reveille.cancel(id bigint) IS 'Cancels a job. Returns `cancelled` (the job was waiting or blocked, and has now ended), `requested` (the job is running, and its handler is asked to stop), or the reason why nothing was cancelled: `finished`, `dead` or `unknown`.';

CREATE FUNCTION reveille.cancel_live(ids bigint[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    cancelled int;
begin
    with requested as (
        update reveille.jobs
        set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
        where id = any (ids) and reserved_at is not null
        returning id
    ), ended as (
        delete from reveille.jobs where id = any (ids) and reserved_at is null returning *
    ), finished as (
        insert into reveille.finished_jobs (
            day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
            key, tags, metadata, errors, progress, parent_id, schedule_id, outcome
        )
        select
            extract(epoch from now())::bigint / 86400 % 32, id, queue, kind, payload, priority, attempts, failures,
            max_attempts, available_at, created_at, key, tags, metadata, errors, progress, parent_id, schedule_id,
            'cancelled'
        from ended
        where not exists (select from reveille.queues where name = ended.queue and retention = interval '0')
    ), kept as (
        insert into reveille.ends (id, outcome, errors)
        select id, 'cancelled', errors from ended
        where awaited and exists (select from reveille.queues where name = ended.queue and retention = interval '0')
    ), noted as (
        insert into reveille.linked_ends (job, outcome, workflow)
        select id, 'cancelled', (
            select members.workflow from reveille.workflow_jobs as members where members.job = ended.id
        )
        from ended
        where linked
        on conflict (job) do update set outcome = excluded.outcome, result = null, ended_at = excluded.ended_at
    ), told as materialized (
        -- The worker confirms the notification in the table. If no notification comes, the worker's next heartbeat
        -- finds the request.
        select pg_notify('reveille.cancel', id::text) from requested where pg_notification_queue_usage() < 0.9
        union all
        select pg_notify('reveille.finished', id || ' cancelled') from ended
        where awaited and pg_notification_queue_usage() < 0.9
        union all
        -- In an ordered queue, the next job with the same key may start now.
        select reveille.ring(array(
            select distinct ended.queue from ended
            join reveille.queues on queues.name = ended.queue and queues.limited = 'key'
        ))
        union all
        select reveille.tell_of_ends() where exists (select from ended where linked)
    )
    select (select count(*) from requested) + (select count(*) from ended) into cancelled
    where (select count(*) from told) >= 0;
    return cancelled;
end
$$;

COMMENT ON FUNCTION reveille.cancel_live(ids bigint[]) IS 'Cancels the waiting ones of these live jobs, and asks the handlers of the running ones to stop. The caller has locked the rows of the jobs. Returns their number.';

CREATE FUNCTION reveille.cancel_members(most integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION reveille.cancel_members(most integer) IS 'Cancels up to `most` jobs of workflows that are being cancelled, in the order of their names. Returns the number of jobs that it has passed. For reveille.apply_linked_ends.';

CREATE FUNCTION reveille.cancel_or_bury(ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

COMMENT ON FUNCTION reveille.cancel_or_bury(ids bigint[]) IS 'Cancels live jobs, as reveille.cancel_live does. A waiting job whose cancel the server refuses becomes a dead job.';

CREATE FUNCTION reveille.cancel_workflow(id bigint) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    now_is text;
begin
    update reveille.workflows set state = 'cancelling'
    where workflows.id = cancel_workflow.id and state in ('running', 'stalled');
    if found then
        perform reveille.tell_of_ends();
    end if;
    select state into now_is from reveille.workflows where workflows.id = cancel_workflow.id;
    return coalesce(now_is, 'unknown');
end
$$;

COMMENT ON FUNCTION reveille.cancel_workflow(id bigint) IS 'Cancels a workflow: no blocked job of it starts any more, workers cancel its jobs, and the handlers of running jobs are asked to stop. Jobs that wait for any end or for a cancellation alone still run. Returns the state of the workflow: `cancelling`, or the state in which it has ended, or `unknown`.';

CREATE FUNCTION reveille.check_changed_job() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
declare
    is_sound boolean;
begin
    is_sound := reveille.check_job(
        new.queue, new.kind, new.payload, new.priority, new.attempts, new.failures, new.max_attempts, new.reserved_at,
        new.reserved_by, new.available_at, new.created_at, new.unique_key, new.unique_until, new.key, new.timeout,
        new.tags, new.metadata, new.errors
    );
    return null;
end
$$;

COMMENT ON FUNCTION reveille.check_changed_job() IS 'Refuses an update that leaves an odd row (reveille.check_job).';

CREATE FUNCTION reveille.check_inserted_jobs() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
declare
    job record;
    is_sound boolean;
begin
    -- Every name is qualified, since this function runs with the search path of any role that inserts. `limit 1` makes
    -- the planner expect few rows. Without it, a session whose first insert has a million jobs would make a plan for a
    -- million rows, and keep this plan. Postgres would compile the plan (JIT) at each later insert, which takes 13 ms.
    perform from inserted
    where (
            greatest(pg_catalog.octet_length(queue), pg_catalog.octet_length(kind)) operator(pg_catalog.<=) 128
            and least(pg_catalog.octet_length(queue), pg_catalog.octet_length(kind)) operator(pg_catalog.>) 0
            and (
                pg_catalog.pg_column_size(payload) operator(pg_catalog.<=) 512
                or pg_catalog.octet_length(payload::pg_catalog.text) operator(pg_catalog.<=) 8388608
            )
            and priority operator(pg_catalog.>=) 0 and priority operator(pg_catalog.<=) 3
            and attempts operator(pg_catalog.=) 0 and failures operator(pg_catalog.=) 0
            and max_attempts operator(pg_catalog.>) 0
            and pg_catalog.isfinite(available_at) and pg_catalog.isfinite(created_at)
            and reserved_at is null and reserved_by is null and unique_key is null and unique_until is null
            and key is null and timeout is null and tags is null and metadata is null and errors is null
        ) is not true
    limit 1;
    if found then
        -- The call is an assignment, because each error would contain the whole text of a `perform` statement.
        for job in select * from inserted loop
            is_sound := reveille.check_job(
                job.queue, job.kind, job.payload, job.priority, job.attempts, job.failures, job.max_attempts,
                job.reserved_at, job.reserved_by, job.available_at, job.created_at, job.unique_key, job.unique_until,
                job.key, job.timeout, job.tags, job.metadata, job.errors
            );
        end loop;
    end if;
    return null;
end
$$;

COMMENT ON FUNCTION reveille.check_inserted_jobs() IS 'Refuses an insert that contains an odd row (reveille.check_job).';

CREATE FUNCTION reveille.check_job(queue text, kind text, payload jsonb, priority smallint, attempts integer, failures integer, max_attempts integer, reserved_at timestamp with time zone, reserved_by bigint, available_at timestamp with time zone, created_at timestamp with time zone, unique_key text, unique_until text, key text, timeout interval, tags text[], metadata jsonb, errors jsonb) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
declare
    broken text;
begin
    -- Nearly all jobs fulfil this first condition. The condition is kept short, because Postgres resolves each operator
    -- anew in each transaction.
    if queue operator(pg_catalog.<>) '' and kind operator(pg_catalog.<>) ''
        and greatest(pg_catalog.length(queue), pg_catalog.length(kind)) operator(pg_catalog.<=) 128
        and (
            pg_catalog.pg_column_size(payload) operator(pg_catalog.<=) 512
            or pg_catalog.octet_length(payload::pg_catalog.text) operator(pg_catalog.<=) 8388608
        )
        and priority operator(pg_catalog.>=) 0 and priority operator(pg_catalog.<=) 3
        and attempts operator(pg_catalog.=) 0 and failures operator(pg_catalog.=) 0
        and max_attempts operator(pg_catalog.>) 0 and reserved_at is null and reserved_by is null
        and pg_catalog.isfinite(available_at) and pg_catalog.isfinite(created_at)
        and coalesce(unique_key, unique_until, key) is null
        and timeout is null and tags is null and metadata is null and errors is null
    then
        return true;
    end if;
    broken := case
        when pg_catalog.length(queue) operator(pg_catalog.<) 1 or pg_catalog.length(queue) operator(pg_catalog.>) 128
            then 'queue_has_1_to_128_characters'
        when pg_catalog.length(kind) operator(pg_catalog.<) 1 or pg_catalog.length(kind) operator(pg_catalog.>) 128
            then 'kind_has_1_to_128_characters'
        when pg_catalog.pg_column_size(payload) operator(pg_catalog.>) 512
            and pg_catalog.octet_length(payload::pg_catalog.text) operator(pg_catalog.>) 8388608
            then 'payload_is_at_most_8_mib'
        when priority operator(pg_catalog.<) 0 or priority operator(pg_catalog.>) 3
            then 'priority_is_0_to_3'
        when attempts operator(pg_catalog.<) 0
            then 'attempts_is_not_negative'
        -- Each claim adds one to `attempts`, which overflows at two billion. The limit is half of that, and no job
        -- needs more.
        when attempts operator(pg_catalog.>) 1000000000
            then 'attempts_is_at_most_1000000000'
        when failures operator(pg_catalog.<) 0 or failures operator(pg_catalog.>) attempts
            then 'failures_is_0_to_attempts'
        when max_attempts operator(pg_catalog.<) 1
            then 'max_attempts_is_positive'
        when pg_catalog.num_nulls(reserved_at, reserved_by) operator(pg_catalog.=) 1
            then 'reserved_at_and_by_go_together'
        when not pg_catalog.isfinite(available_at) or not pg_catalog.isfinite(created_at)
            or not pg_catalog.isfinite(reserved_at)
            then 'times_are_finite'
        when pg_catalog.octet_length(unique_key) operator(pg_catalog.<) 1
            or pg_catalog.octet_length(unique_key) operator(pg_catalog.>) 512
            then 'unique_key_has_1_to_512_bytes'
        when unique_until is not null and unique_key is null
            or unique_until operator(pg_catalog.<>) 'started' and unique_until operator(pg_catalog.<>) 'finished'
            then 'unique_until_is_started_or_finished'
        when pg_catalog.octet_length(key) operator(pg_catalog.<) 1
            or pg_catalog.octet_length(key) operator(pg_catalog.>) 512
            then 'key_has_1_to_512_bytes'
        when timeout operator(pg_catalog.<=) '0'::pg_catalog.interval
            then 'timeout_is_positive'
        when pg_catalog.array_ndims(tags) operator(pg_catalog.>) 1
            then 'tags_have_one_dimension'
        when pg_catalog.cardinality(tags) operator(pg_catalog.>) 64 or pg_catalog.array_position(tags, null) is not null
            then 'tags_are_at_most_64'
        when pg_catalog.octet_length(pg_catalog.array_to_string(tags, '')) operator(pg_catalog.>) 16384
            then 'tags_are_at_most_16_kib'
        when pg_catalog.jsonb_typeof(metadata) operator(pg_catalog.<>) 'object'
            then 'metadata_is_an_object'
        when pg_catalog.pg_column_size(metadata) operator(pg_catalog.>) 512
            and pg_catalog.octet_length(metadata::pg_catalog.text) operator(pg_catalog.>) 262144
            then 'metadata_is_at_most_256_kib'
        when pg_catalog.jsonb_typeof(errors) operator(pg_catalog.<>) 'array'
            then 'errors_is_an_array'
    end;
    if broken is null then
        return true;
    end if;
    raise exception using
        errcode = 'check_violation', table = 'jobs', constraint = broken,
        message = pg_catalog.format('new row for relation "jobs" violates check constraint "%s"', broken);
end
$$;

COMMENT ON FUNCTION reveille.check_job(queue text, kind text, payload jsonb, priority smallint, attempts integer, failures integer, max_attempts integer, reserved_at timestamp with time zone, reserved_by bigint, available_at timestamp with time zone, created_at timestamp with time zone, unique_key text, unique_until text, key text, timeout interval, tags text[], metadata jsonb, errors jsonb) IS 'Refuses an odd row: raises a check violation that names the broken rule. Returns true for any other row.';

CREATE FUNCTION reveille.check_may_enqueue() RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if not has_column_privilege(
        coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, 'reveille.jobs', 'kind', 'insert'
    ) then
        raise exception 'permission denied for table jobs' using errcode = 'insufficient_privilege';
    end if;
    if exists (select from reveille.workers where not applies_ends) then
        raise exception 'workers of an older version are running, which would not start the jobs that wait for others'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Stop these workers or replace them first.';
    end if;
end
$$;

COMMENT ON FUNCTION reveille.check_may_enqueue() IS 'Refuses a caller that may not insert jobs, and refuses linked jobs while a worker lives that does not apply their ends.';

CREATE FUNCTION reveille.complete_in(id bigint, worker bigint, attempt integer, reserved_at timestamp with time zone, run_seconds double precision, OUT transaction text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    ended record;
begin
    delete from reveille.jobs
    where jobs.id = complete_in.id and jobs.reserved_by is not distinct from complete_in.worker
        and jobs.attempts = complete_in.attempt and jobs.reserved_at is not distinct from complete_in.reserved_at
    returning * into ended;
    if not found then
        return;
    end if;
    transaction := pg_current_xact_id()::text;
    if not exists (select from reveille.queues where queues.name = ended.queue and queues.retention = interval '0') then
        insert into reveille.finished_jobs (
            day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
            key, tags, metadata, errors, progress, parent_id, schedule_id, outcome, worker, wait_seconds, run_seconds,
            finished_at
        )
        values (
            extract(epoch from clock_timestamp())::bigint / 86400 % 32, ended.id, ended.queue, ended.kind,
            ended.payload, ended.priority, ended.attempts, ended.failures, ended.max_attempts, ended.available_at,
            ended.created_at, ended.key, ended.tags, ended.metadata, ended.errors, ended.progress, ended.parent_id,
            ended.schedule_id, 'completed', ended.reserved_by,
            greatest(extract(epoch from ended.reserved_at - ended.available_at), 0), complete_in.run_seconds,
            clock_timestamp()
        );
    else
        -- The worker may not know of this call. It then finds here that its own attempt has completed the job.
        insert into reveille.ends (id, outcome, errors, queue, worker, attempt)
        values (ended.id, 'completed', ended.errors, ended.queue, ended.reserved_by, ended.attempts);
    end if;
    -- In a limited queue, the end of a job lets another job start.
    if ended.limited then
        perform reveille.ring(array[ended.queue]);
    end if;
    if ended.awaited and pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.finished', ended.id || ' completed');
    end if;
    if ended.linked then
        perform reveille.note_end(ended.id, 'completed');
    end if;
end
$$;

COMMENT ON FUNCTION reveille.complete_in(id bigint, worker bigint, attempt integer, reserved_at timestamp with time zone, run_seconds double precision, OUT transaction text) IS 'Completes a job in the caller''s transaction, fenced by the job''s reservation, and moves the job to the history, unless its queue keeps none. Returns the transaction''s id; null if the reservation no longer stands. Does not update reveille.counters, because other sessions would have to wait for the counters'' rows until the transaction ends. The worker counts the job once the transaction has ended. For workers.';

CREATE FUNCTION reveille.count_anew() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    new.counted_from := now();
    new.next_at := null;
    new.error := null;
    return new;
end
$$;

COMMENT ON FUNCTION reveille.count_anew() IS 'Counts ticks from now on, when a schedule''s timing changes or the schedule is resumed.';

CREATE FUNCTION reveille.cycle_of(jobs jsonb) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET jit TO 'off'
    AS $$
declare
    names text[];
    -- The prerequisites of all jobs, one job after another, and the place of the last prerequisite of each job.
    prerequisites int[];
    last int[];
    -- The next prerequisite to follow of each job on the path; null: the job is not on a path yet.
    next int[];
    is_done boolean[];
    path int[] := '{}';
    depth int := 0;
    at int;
    target int;
begin
    with named as materialized (
        select given.place::int, given.job ->> 'name' as name
        from jsonb_array_elements(jobs) with ordinality as given (job, place)
    ), edges as materialized (
        select
            case read.direction when 'after' then read.place::int else named.place end as place,
            case read.direction when 'after' then named.place else read.place::int end as target
        from reveille.read_dependencies(jobs) as read
        join named on named.name = read.name
    )
    select
        array_agg(named.name order by named.place),
        (select array_agg(edges.target order by edges.place, edges.target) from edges),
        array_agg(named.last order by named.place)
            filter (where exists (select from edges where edges.target > edges.place))
    into names, prerequisites, last
    from (
        select named.place, named.name, (sum(coalesce(counts.edges, 0)) over (order by named.place))::int as last
        from named
        left join (select edges.place, count(*) as edges from edges group by edges.place) as counts
            on counts.place = named.place
    ) as named;
    -- If each job waits only for jobs before it, there is no cycle.
    if last is null then
        return null;
    end if;
    next := array_fill(null::int, array[cardinality(names)]);
    is_done := array_fill(false, array[cardinality(names)]);
    for root in 1..cardinality(names) loop
        continue when is_done[root];
        depth := 1;
        path[1] := root;
        next[root] := case root when 1 then 1 else last[root - 1] + 1 end;
        while depth > 0 loop
            at := path[depth];
            if next[at] > last[at] then
                is_done[at] := true;
                depth := depth - 1;
                continue;
            end if;
            target := prerequisites[next[at]];
            next[at] := next[at] + 1;
            continue when is_done[target];
            if next[target] is not null then
                return format('the jobs wait for each other in a circle: %s', (
                    select string_agg(
                        case step.place when 1 then '' when 2 then ' waits for ' else ', which waits for ' end
                            || to_json(names[step.job]),
                        '' order by step.place
                    )
                    from unnest(path[array_position(path[1:depth], target):depth] || target)
                        with ordinality as step (job, place)
                ));
            end if;
            depth := depth + 1;
            path[depth] := target;
            next[target] := case target when 1 then 1 else last[target - 1] + 1 end;
        end loop;
    end loop;
    return null;
end
$$;

COMMENT ON FUNCTION reveille.cycle_of(jobs jsonb) IS 'Returns which of these jobs wait for each other in a circle; null: none.';

CREATE FUNCTION reveille.dead_groups(OUT queue text, OUT kind text, OUT reason text, OUT jobs bigint, OUT first_died_at timestamp with time zone, OUT last_died_at timestamp with time zone) RETURNS SETOF record
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET enable_hashagg TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION reveille.dead_groups(OUT queue text, OUT kind text, OUT reason text, OUT jobs bigint, OUT first_died_at timestamp with time zone, OUT last_died_at timestamp with time zone) IS 'Returns the number of dead jobs by queue, kind and reason, for the views. See reveille.dead_jobs_overview.';

CREATE FUNCTION reveille.dependency_state(fires_on text, on_dead text, outcome text) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$
    select case
        when outcome operator(pg_catalog.=) 'revived' then 'open'
        -- The job was dead before, even if no worker has applied its death.
        when outcome operator(pg_catalog.=) 'purged' and fires_on operator(pg_catalog.=) 'dead' then 'met'
        when fires_on operator(pg_catalog.=) 'any' then 'met'
        when fires_on operator(pg_catalog.=) outcome then 'met'
        when fires_on operator(pg_catalog.=) 'cancelled' and outcome operator(pg_catalog.=) 'skipped' then 'met'
        when fires_on operator(pg_catalog.=) 'completed' and outcome operator(pg_catalog.=) 'dead'
            and on_dead operator(pg_catalog.=) 'hold'
        then 'held'
        else 'skipped'
    end
$$;

COMMENT ON FUNCTION reveille.dependency_state(fires_on text, on_dead text, outcome text) IS 'Returns the state of a dependency after its prerequisite has ended with an outcome. A met or skipped dependency keeps its state.';

CREATE FUNCTION reveille.emit(event text, payload jsonb DEFAULT 'null'::jsonb) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION reveille.emit(event text, payload jsonb) IS 'Emits an event: jobs that wait for it are due at once, and jobs that wait for it later go on at once. Returns true for the first emit of a name; later emits change nothing. An event is kept for 30 days.';

CREATE FUNCTION reveille.emit_ends(ended bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
    if not exists (select from reveille.waits where starts_with(waits.event, 'reveille:end:')) then
        return;
    end if;
    insert into reveille.events (name, payload, until)
    select
        'reveille:end:' || ends.job,
        jsonb_build_object(
            'outcome', case ends.outcome when 'completed' then 'completed' when 'dead' then 'dead' else 'cancelled' end,
            'result', ends.result,
            'error', (
                select dead_jobs.errors -> -1 ->> 'error' from reveille.dead_jobs
                where ends.outcome = 'dead' and dead_jobs.id = ends.job
            )
        ),
        -- The event goes with the wait.
        clock_timestamp()
    from reveille.linked_ends as ends
    where ends.job = any (ended) and ends.outcome <> 'revived'
        and exists (
            select from reveille.waits
            where waits.event = 'reveille:end:' || ends.job and starts_with(waits.event, 'reveille:end:')
        )
    on conflict do nothing;
end
$$;

COMMENT ON FUNCTION reveille.emit_ends(ended bigint[]) IS 'Emits the ends of these jobs as events, if handlers wait for them. The first end of a job counts. For reveille.apply_linked_ends.';

CREATE FUNCTION reveille.end_blocked(ids bigint[], outcome text) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    ended bigint;
begin
    with ended as (
        delete from reveille.blocked_jobs where blocked_jobs.id = any (ids) returning *
    ), finished as (
        insert into reveille.finished_jobs (
            day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, key,
            tags, metadata, errors, parent_id, schedule_id, outcome
        )
        select
            extract(epoch from now())::bigint / 86400 % 32, id, queue, kind, payload, priority, 0, 0, max_attempts,
            coalesce(available_at, created_at), created_at, key, tags, metadata,
            case
                when end_blocked.outcome = 'skipped'
                then jsonb_build_array(jsonb_build_object(
                    'at', now(), 'reason', 'skipped',
                    'error', 'not started: the outcomes that the job waited for can no longer come'
                ))
            end,
            parent_id, schedule_id, 'cancelled'
        from ended
        where not exists (select from reveille.queues where name = ended.queue and retention = interval '0')
    ), kept as (
        insert into reveille.ends (id, outcome)
        select id, 'cancelled' from ended
        where awaited and exists (select from reveille.queues where name = ended.queue and retention = interval '0')
    ), noted as (
        insert into reveille.linked_ends (job, outcome, was_blocked, workflow)
        select id, end_blocked.outcome, true, workflow from ended
        on conflict (job) do update set outcome = excluded.outcome, was_blocked = true, ended_at = excluded.ended_at
    )
    select count(*) + 0 * count(
        case
            when awaited and pg_notification_queue_usage() < 0.9
            then pg_notify('reveille.finished', id || ' cancelled')::text
        end
    ) into ended
    from ended;
    if ended > 0 then
        perform reveille.tell_of_ends();
    end if;
    return ended;
end
$$;

COMMENT ON FUNCTION reveille.end_blocked(ids bigint[], outcome text) IS 'Ends blocked jobs as `cancelled` or `skipped`. Returns the number of jobs that were blocked.';

CREATE FUNCTION reveille.enqueue(kind text, payload jsonb DEFAULT '{}'::jsonb, queue text DEFAULT 'default'::text, delay interval DEFAULT NULL::interval, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority bigint DEFAULT 2, max_attempts bigint DEFAULT NULL::bigint, timeout interval DEFAULT NULL::interval, unique_key text DEFAULT NULL::text, unique_mode text DEFAULT 'keep'::text, unique_until text DEFAULT 'finished'::text, key text DEFAULT NULL::text, tags text[] DEFAULT NULL::text[], metadata jsonb DEFAULT NULL::jsonb, parent_id bigint DEFAULT NULL::bigint, max_payload bigint DEFAULT NULL::bigint, OUT id bigint, OUT existed boolean) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
    largest bigint;
    due timestamptz;
    period interval;
    sound boolean;
begin
    if enqueue.delay is not null and enqueue.available_at is not null then
        raise exception 'enqueue takes delay or available_at, not both' using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.delay operator(pg_catalog.<) interval '0' then
        raise exception 'delay must not be negative' using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.priority operator(pg_catalog.<) 0 or enqueue.priority operator(pg_catalog.>) 3 then
        raise exception 'priority must be 0 (urgent), 1 (high), 2 (normal) or 3 (low), not %', enqueue.priority
            using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.max_attempts operator(pg_catalog.<) 1 or enqueue.max_attempts operator(pg_catalog.>) 2147483647 then
        raise exception 'max_attempts must be 1 to 2147483647, not %', enqueue.max_attempts
            using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.kind is null then
        raise exception 'kind must not be null' using errcode = 'null_value_not_allowed';
    end if;
    if pg_catalog.array_ndims(enqueue.tags) operator(pg_catalog.>) 1 then
        raise exception 'tags must be one list, not an array of % dimensions', pg_catalog.array_ndims(enqueue.tags)
            using errcode = 'invalid_parameter_value', hint = 'Write it like array[''a'', ''b''].';
    end if;
    largest := case
        when enqueue.max_payload is not null then enqueue.max_payload
        when pg_catalog.length(pg_catalog.current_setting('reveille.max_payload', true)) operator(pg_catalog.>) 0
        then pg_catalog.current_setting('reveille.max_payload')::pg_catalog.int8
        else 1048576
    end;
    -- The payload is measured as text, since workers receive text. A payload that is stored in at most 512 bytes is not
    -- measured, so that an ordinary job does not pay for the measurement. If the maximum is below 512 bytes, every
    -- payload is measured.
    if (pg_catalog.pg_column_size(enqueue.payload) operator(pg_catalog.>) 512 or largest operator(pg_catalog.<) 512)
        and pg_catalog.octet_length(enqueue.payload::pg_catalog.text) operator(pg_catalog.>) largest
    then
        raise exception 'payload is larger than the limit of % bytes', largest
            using errcode = 'program_limit_exceeded',
                  hint = 'Keep large data elsewhere and pass a reference, or raise the limit to at most 8388608: by '
                         'the argument max_payload, or for a session by the setting reveille.max_payload.';
    end if;
    if (enqueue.unique_mode operator(pg_catalog.=) any (array['keep', 'replace', 'debounce'])) is not true then
        raise exception 'unique_mode must be keep, replace or debounce' using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.unique_until operator(pg_catalog.<>) all (array['started', 'finished']) then
        begin
            period := enqueue.unique_until::pg_catalog.interval;
        exception when invalid_datetime_format or datetime_field_overflow or interval_field_overflow then
            null; -- The next condition refuses the text.
        end;
        if (period operator(pg_catalog.>) interval '0' and pg_catalog.isfinite(period)) is not true then
            raise exception 'unique_until must be started, finished or a positive interval such as 1 hour, not %',
                pg_catalog.quote_literal(enqueue.unique_until) using errcode = 'invalid_parameter_value';
        end if;
        if enqueue.unique_key is null then
            raise exception 'unique_until takes an interval only with a unique_key'
                using errcode = 'invalid_parameter_value';
        end if;
    end if;
    due := coalesce(
        enqueue.available_at,
        pg_catalog.now() operator(pg_catalog.+) coalesce(enqueue.delay, interval '0')
    );
    -- The values are checked before the insert, because an error in the insert would show the text of each enclosing
    -- statement.
    if (
        pg_catalog.length(enqueue.kind) operator(pg_catalog.>) 0
        and pg_catalog.length(enqueue.kind) operator(pg_catalog.<=) 128
        and pg_catalog.isfinite(due)
        and (enqueue.queue is null
            or pg_catalog.length(enqueue.queue) operator(pg_catalog.>) 0
            and pg_catalog.length(enqueue.queue) operator(pg_catalog.<=) 128)
        and (enqueue.unique_key is null
            or pg_catalog.octet_length(enqueue.unique_key) operator(pg_catalog.>) 0
            and pg_catalog.octet_length(enqueue.unique_key) operator(pg_catalog.<=) 512)
        and (enqueue.key is null
            or pg_catalog.octet_length(enqueue.key) operator(pg_catalog.>) 0
            and pg_catalog.octet_length(enqueue.key) operator(pg_catalog.<=) 512)
        and enqueue.timeout is null and enqueue.tags is null and enqueue.metadata is null
    ) is not true then
        sound := reveille.check_job(
            coalesce(enqueue.queue, 'default'), enqueue.kind, '{}', 2::smallint, 0, 0, 20, null, null, due,
            pg_catalog.now(), enqueue.unique_key, null, enqueue.key, enqueue.timeout, enqueue.tags, enqueue.metadata,
            null
        );
    end if;

    loop
        insert into reveille.jobs (
            kind, payload, queue, available_at, priority, max_attempts, timeout,
            unique_key, unique_until, key, tags, metadata, parent_id
        )
        select
            enqueue.kind, coalesce(enqueue.payload, '{}'), coalesce(enqueue.queue, 'default'), due,
            coalesce(enqueue.priority::smallint, 2::smallint), coalesce(enqueue.max_attempts::int, 20), enqueue.timeout,
            enqueue.unique_key,
            case
                when enqueue.unique_key is not null
                then case when period is null then enqueue.unique_until else 'finished' end
            end,
            enqueue.key, enqueue.tags, enqueue.metadata, enqueue.parent_id
        where enqueue.unique_key is null or reveille.period_holder(enqueue.kind, enqueue.unique_key) is null
        on conflict (kind, unique_key) where unique_key is not null do nothing
        returning jobs.id into id;
        if found then
            existed := false;
            if enqueue.unique_key is null then
                return;
            end if;
            -- The check for a period is repeated, because the insert may have waited for another transaction. That
            -- transaction may have enqueued a job with this unique key for a period, and that job may have ended.
            if period is null and reveille.period_holder(enqueue.kind, enqueue.unique_key) is null then
                return;
            end if;
            if reveille.hold_unique_key(id, period) then
                return;
            end if;
            continue;
        end if;

        if enqueue.unique_mode operator(pg_catalog.<>) 'keep' then
            id := reveille.replace_waiting(
                enqueue.kind, enqueue.unique_key, coalesce(enqueue.payload, '{}'), enqueue.tags, enqueue.metadata,
                case when enqueue.unique_mode operator(pg_catalog.=) 'debounce' then due end
            );
            if id is not null then
                existed := true;
                return;
            end if;
        end if;

        existed := true;
        id := reveille.live_holder(enqueue.kind, enqueue.unique_key);
        if id is null then
            -- This is a separate statement, so that it also sees what was committed since the statement above.
            id := reveille.period_holder(enqueue.kind, enqueue.unique_key);
        end if;
        if id is not null then
            return;
        end if;
        -- The job that held the unique key has ended meanwhile, so the next round of the loop tries the insert again.
    end loop;
end
$$;

COMMENT ON FUNCTION reveille.enqueue(kind text, payload jsonb, queue text, delay interval, available_at timestamp with time zone, priority bigint, max_attempts bigint, timeout interval, unique_key text, unique_mode text, unique_until text, key text, tags text[], metadata jsonb, parent_id bigint, max_payload bigint, OUT id bigint, OUT existed boolean) IS 'Enqueues a job in the caller''s transaction: `select id from reveille.enqueue(kind => ''hello'')`. If another job of the kind holds the unique_key, no job is added: `existed` is true, and `id` is the id of that other job. If that other job is waiting, unique_mode decides what it gets: nothing (`keep`), the new payload, tags and metadata (`replace`), or these and the new due time (`debounce`). A job that is running or has ended always stays unchanged. unique_until decides when the unique key is given up: when the job first starts (`started`), or when it has ended (`finished`). With an interval such as `1 hour`, the unique key is also held until that time has passed since the job was enqueued. parent_id is the id of the job whose handler enqueues this job. max_payload is the largest payload in bytes, measured as text; null: the setting reveille.max_payload, or else 1 MiB.';

CREATE FUNCTION reveille.enqueue_after(after bigint[], kind text, payload jsonb DEFAULT '{}'::jsonb, fires_on text DEFAULT 'completed'::text, on_dead text DEFAULT 'hold'::text, wait_for text DEFAULT 'all'::text, queue text DEFAULT 'default'::text, delay interval DEFAULT NULL::interval, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority bigint DEFAULT 2, max_attempts bigint DEFAULT NULL::bigint, timeout interval DEFAULT NULL::interval, key text DEFAULT NULL::text, tags text[] DEFAULT NULL::text[], metadata jsonb DEFAULT NULL::jsonb, parent_id bigint DEFAULT NULL::bigint, max_payload bigint DEFAULT NULL::bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    job jsonb;
    refusal text;
begin
    perform reveille.check_may_enqueue();
    if enqueue_after.fires_on is null or enqueue_after.fires_on not in ('completed', 'dead', 'cancelled', 'any') then
        raise exception 'fires_on must be completed, dead, cancelled or any'
            using errcode = 'invalid_parameter_value';
    end if;
    if enqueue_after.on_dead is null or enqueue_after.on_dead not in ('hold', 'cancel') then
        raise exception 'on_dead must be hold or cancel' using errcode = 'invalid_parameter_value';
    end if;
    if cardinality(after) = 0 or array_position(after, null) > 0 or after is null then
        raise exception 'after must be the ids of one or more jobs' using errcode = 'invalid_parameter_value';
    end if;
    if (select count(distinct id) from unnest(after) as waited_for (id)) < cardinality(after) then
        raise exception 'after names a job twice' using errcode = 'invalid_parameter_value';
    end if;
    job := jsonb_strip_nulls(jsonb_build_object(
        'kind', enqueue_after.kind, 'queue', enqueue_after.queue, 'delay', enqueue_after.delay,
        'available_at', enqueue_after.available_at, 'priority', enqueue_after.priority,
        'max_attempts', enqueue_after.max_attempts, 'timeout', enqueue_after.timeout, 'key', enqueue_after.key,
        'tags', to_jsonb(enqueue_after.tags), 'parent_id', enqueue_after.parent_id,
        'wait_for', enqueue_after.wait_for
    )) || jsonb_build_object(
        'payload', coalesce(enqueue_after.payload, '{}'), 'metadata', enqueue_after.metadata,
        'fires_on', enqueue_after.fires_on, 'on_dead', enqueue_after.on_dead,
        'after', (
            select jsonb_agg(jsonb_build_object('id', waited_for.id) order by waited_for.place)
            from unnest(after) with ordinality as waited_for (id, place)
        )
    );
    refusal := reveille.refusal_of_linked_jobs(null, jsonb_build_array(job), coalesce(
        enqueue_after.max_payload, reveille.largest_payload()
    ));
    if refusal is not null then
        raise exception '%', regexp_replace(refusal, '^job 1: ', '') using errcode = 'invalid_parameter_value';
    end if;
    return (reveille.store_linked_jobs(null, jsonb_build_array(job)))[1];
end
$$;

COMMENT ON FUNCTION reveille.enqueue_after(after bigint[], kind text, payload jsonb, fires_on text, on_dead text, wait_for text, queue text, delay interval, available_at timestamp with time zone, priority bigint, max_attempts bigint, timeout interval, key text, tags text[], metadata jsonb, parent_id bigint, max_payload bigint) IS 'Enqueues a job in the caller''s transaction that starts once other jobs have ended: `select reveille.enqueue_after(array[7, 8], ''report'')`. fires_on is the outcome that it waits for: `completed`, `dead`, `cancelled` or `any`. If that outcome can no longer come, the job is cancelled. But if it waits for `completed` and the other job is dead, on_dead decides: `hold` waits until that job is revived or purged, `cancel` cancels. wait_for is `all`, or `first`: one of the jobs is enough. A delay counts from the last end. The other arguments are those of reveille.enqueue, without the unique key. Returns the id.';

CREATE FUNCTION reveille.enqueue_json(jobs jsonb) RETURNS TABLE(place integer, id bigint, existed boolean)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
    given pg_catalog.jsonb := case
        when pg_catalog.jsonb_typeof(enqueue_json.jobs) operator(pg_catalog.=) 'object'
        then pg_catalog.jsonb_build_array(enqueue_json.jobs)
        else enqueue_json.jobs
    end;
    largest bigint := case
        when pg_catalog.length(pg_catalog.current_setting('reveille.max_payload', true)) operator(pg_catalog.>) 0
        then pg_catalog.current_setting('reveille.max_payload')::pg_catalog.int8
        else 1048576
    end;
    are_plain boolean;
    refusal text;
begin
    if (pg_catalog.jsonb_typeof(given) operator(pg_catalog.=) 'array') is not true then
        raise exception 'jobs must be a job, which is an object, or an array of jobs, not %',
            coalesce(pg_catalog.jsonb_typeof(given), 'null')
            using errcode = 'invalid_parameter_value';
    end if;

    -- Most calls have jobs without options. Their check and their insert look for no other key.
    select pg_catalog.bool_and(case
        when pg_catalog.jsonb_typeof(new.kind) operator(pg_catalog.=) 'string'
        then new.job operator(pg_catalog.-) array['kind', 'payload', 'queue'] operator(pg_catalog.=) '{}'
            and new.kind operator(pg_catalog.#>>) '{}' operator(pg_catalog.<>) ''
            and pg_catalog.octet_length(new.kind operator(pg_catalog.#>>) '{}') operator(pg_catalog.<=) 128
            and (
                new.queue is null
                or pg_catalog.jsonb_typeof(new.queue) operator(pg_catalog.=) 'string'
                and new.queue operator(pg_catalog.#>>) '{}' operator(pg_catalog.<>) ''
                and pg_catalog.octet_length(new.queue operator(pg_catalog.#>>) '{}') operator(pg_catalog.<=) 128
            )
            and pg_catalog.pg_column_size(new.payload) operator(pg_catalog.<=) 512
            and largest operator(pg_catalog.>=) 512
        else false
    end)
    into are_plain
    from (
        select
            each.job, each.job operator(pg_catalog.->) 'kind' as kind,
            each.job operator(pg_catalog.->) 'queue' as queue,
            coalesce(each.job operator(pg_catalog.->) 'payload', '{}') as payload
        from pg_catalog.jsonb_array_elements(given) as each (job)
        offset 0
    ) as new;
    are_plain := coalesce(are_plain, true);

    if not are_plain then
        refusal := reveille.refusal_of_json_jobs(given, largest);
        if refusal is not null then
            raise exception '%', refusal using errcode = 'invalid_parameter_value';
        end if;
        if exists (
            select from pg_catalog.jsonb_array_elements(given) as each (job)
            where each.job operator(pg_catalog.->>) 'unique_key' is not null
        ) then
            -- The jobs are stored as in sql/enqueue_unique.sql: those without a unique key first, the others in the
            -- order of their kinds and unique keys, in which all sessions wait for unique keys.
            return query
            with new as materialized (
                select * from reveille.read_json_jobs(given, false) as given
                order by
                    case when given.unique_key is not null then given.kind end collate pg_catalog."C" nulls first,
                    given.unique_key collate pg_catalog."C", given.place
            )
            select new.place::pg_catalog.int4, enqueued.id, enqueued.existed
            from new
            cross join lateral reveille.enqueue(
                kind => new.kind, payload => new.payload, queue => new.queue, available_at => new.due,
                priority => new.priority, max_attempts => new.max_attempts, timeout => new.timeout,
                unique_key => new.unique_key, unique_mode => new.unique_mode, unique_until => new.unique_until,
                key => new.key, tags => new.tags, metadata => new.metadata, parent_id => new.parent_id,
                max_payload => 8388608
            ) as enqueued
            order by new.place;
            return;
        end if;
    end if;

    return query
    with stored as (
        insert into reveille.jobs (
            queue, kind, payload, priority, max_attempts, available_at, key, timeout, tags, metadata, parent_id
        )
        select
            new.queue, new.kind, new.payload, new.priority, new.max_attempts, new.due, new.key, new.timeout, new.tags,
            new.metadata, new.parent_id
        from reveille.read_json_jobs(given, are_plain) as new
        order by new.place
        returning jobs.id
    )
    -- The ids ascend in the order of the array.
    select (pg_catalog.row_number() over (order by stored.id))::pg_catalog.int4, stored.id, false from stored;
end
$$;

COMMENT ON FUNCTION reveille.enqueue_json(jobs jsonb) IS 'Enqueues a job, or an array of jobs, in the caller''s transaction: `select place, id, existed from reveille.enqueue_json(''[{"kind": "hello", "payload": {"to": 7}}]'')`. The keys of a job are the arguments of `reveille.enqueue`; only `kind` is required. A key that is null counts as absent, except `payload`. `delay` and `timeout` are texts that Postgres reads as an interval, or numbers of seconds; `priority` is 0 to 3, or `urgent`, `high`, `normal` or `low`. Returns a row for each job: its place in the array, from 1, its id, and whether it existed. Stores all jobs or none. If a job cannot be stored, the error names its place and its key. Jobs with unique keys are stored in the order of these keys, so that two calls do not deadlock.';

CREATE FUNCTION reveille.enqueue_workflow(name text, jobs jsonb, unique_key text DEFAULT NULL::text, input jsonb DEFAULT '{}'::jsonb, parent_id bigint DEFAULT NULL::bigint) RETURNS bigint
    LANGUAGE sql
    AS $$
    select enqueued.id
    from reveille.enqueue_workflow_parts(
        enqueue_workflow.name, array[enqueue_workflow.jobs], enqueue_workflow.unique_key, enqueue_workflow.input,
        enqueue_workflow.parent_id, true
    ) as enqueued
$$;

COMMENT ON FUNCTION reveille.enqueue_workflow(name text, jobs jsonb, unique_key text, input jsonb, parent_id bigint) IS 'Enqueues a workflow of up to 10,000 jobs in the caller''s transaction: `select reveille.enqueue_workflow(''nightly'', ''[{"name": "extract", "kind": "extract"}, {"name": "load", "kind": "load", "after": ["extract"]}]'')`. The keys of a job are those of reveille.add_to_workflow. If a workflow of the name with the unique_key has not ended, no job is added. Returns the id of the workflow, new or not.';

CREATE FUNCTION reveille.enqueue_workflow_parts(name text, parts jsonb[], unique_key text, input jsonb, parent_id bigint, seal boolean, OUT id bigint, OUT existed boolean) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    part jsonb;
begin
    select opened.id, opened.existed into id, existed
    from reveille.open_workflow(
        name => enqueue_workflow_parts.name, unique_key => enqueue_workflow_parts.unique_key,
        input => enqueue_workflow_parts.input, parent_id => enqueue_workflow_parts.parent_id
    ) as opened;
    if existed then
        return;
    end if;
    foreach part in array parts loop
        perform reveille.add_to_workflow(id, part);
    end loop;
    if seal then
        perform reveille.seal_workflow(id);
    end if;
end
$$;

COMMENT ON FUNCTION reveille.enqueue_workflow_parts(name text, parts jsonb[], unique_key text, input jsonb, parent_id bigint, seal boolean, OUT id bigint, OUT existed boolean) IS 'Enqueues a workflow whose jobs come in arrays of up to 10,000 jobs. See reveille.enqueue_workflow.';

CREATE FUNCTION reveille.expected_waiting(OUT jobs double precision, OUT due_share double precision) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select
        (select reltuples from pg_class where oid = 'reveille.jobs_claim'::regclass),
        coalesce((
            select coalesce(common.due, 0) + (1 - coalesce(common.share, 0)) * coalesce(others.due, 0.5)
            from pg_stats as stats
            cross join lateral (
                select sum(freq) as share, sum(freq) filter (where val <= now()) as due
                from unnest(stats.most_common_vals::text::timestamptz[], stats.most_common_freqs) as mcv (val, freq)
            ) as common
            cross join lateral (
                select avg((bound <= now())::int) as due
                from unnest(stats.histogram_bounds::text::timestamptz[]) as bound
            ) as others
            where (stats.schemaname || '.' || stats.tablename) = 'reveille.jobs' and stats.attname = 'available_at'
        ), 0.5)
$$;

COMMENT ON FUNCTION reveille.expected_waiting(OUT jobs double precision, OUT due_share double precision) IS 'Returns the number of waiting jobs and the share of due jobs among them, by the planner''s statistics.';

CREATE FUNCTION reveille.forget_steps(jobs bigint[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
    gone bigint;
begin
    delete from reveille.waits where waits.job = any (forget_steps.jobs);
    delete from reveille.steps where steps.job = any (forget_steps.jobs);
    get diagnostics gone = row_count;
    return gone;
end
$$;

COMMENT ON FUNCTION reveille.forget_steps(jobs bigint[]) IS 'Deletes the steps and waits of these jobs, which have ended. Returns the number of steps.';

CREATE FUNCTION reveille.fresh_job_id() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
    perform reveille.pass_given_ids();
    return nextval('reveille.jobs_id_seq');
end
$$;

COMMENT ON FUNCTION reveille.fresh_job_id() IS 'Returns an id that no job has, for a job that becomes a dead job or is revived while another job has the same id.';

CREATE FUNCTION reveille.head_seal(queue text, priority integer, available_at bigint, id bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((hashtextextended(queue, available_at) # hashint8extended(id, (priority)::bigint)) & '9223372036854775807'::bigint);

COMMENT ON FUNCTION reveille.head_seal(queue text, priority integer, available_at bigint, id bigint) IS 'Returns a checksum over the parts of a head, which shows that they belong together.';

CREATE FUNCTION reveille.held_jobs(OUT id bigint, OUT queue text, OUT kind text, OUT attempt integer, OUT worker bigint, OUT reserved_at timestamp with time zone, OUT cancel_requested_at timestamp with time zone) RETURNS SETOF record
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
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

COMMENT ON FUNCTION reveille.held_jobs(OUT id bigint, OUT queue text, OUT kind text, OUT attempt integer, OUT worker bigint, OUT reserved_at timestamp with time zone, OUT cancel_requested_at timestamp with time zone) IS 'Returns the jobs that workers hold, for the views. See reveille.running_jobs.';

CREATE FUNCTION reveille.histogram_bounds() RETURNS double precision[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select '{0.001,0.0025,0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30,60,300,1800}'::double precision[]
$$;

COMMENT ON FUNCTION reveille.histogram_bounds() IS 'Returns the upper bounds of the buckets of the histograms of times, in seconds.';

CREATE FUNCTION reveille.histogram_quantile(counts bigint[], quantile double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select lower + (coalesce(upper, lower) - lower) * (wanted - (up_to - count)) / count
    from (
        select
            coalesce((reveille.histogram_bounds())[bucket - 1], 0) as lower,
            (reveille.histogram_bounds())[bucket] as upper, count,
            sum(count) over (order by bucket) as up_to, quantile * sum(count) over () as wanted, bucket
        from unnest(counts) with ordinality as buckets (count, bucket)
    ) as buckets
    where count > 0 and up_to >= wanted
    order by bucket
    limit 1
$$;

COMMENT ON FUNCTION reveille.histogram_quantile(counts bigint[], quantile double precision) IS 'Estimates a quantile of a histogram in seconds, such as 0.95; null if the histogram is empty. Times above the last bound count as that bound.';

CREATE FUNCTION reveille.hold_unique_key(id bigint, period interval) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    job record;
begin
    select kind, unique_key, created_at into job
    from reveille.jobs
    where jobs.id = hold_unique_key.id and jobs.created_at = now() and jobs.reserved_by is null;
    if job.unique_key is null then
        raise exception 'job % has not been enqueued with a unique key in this transaction', hold_unique_key.id
            using errcode = 'invalid_parameter_value';
    end if;
    if period is null then
        perform from reveille.unique_periods as held
        where held.kind = job.kind and held.unique_key = job.unique_key and held.ends_at > now();
        if not found then
            return true;
        end if;
    else
        -- The insert waits for any transaction that is inserting the same unique key, and then meets that transaction's
        -- row.
        insert into reveille.unique_periods as held (kind, unique_key, job_id, ends_at)
        values (job.kind, job.unique_key, hold_unique_key.id, job.created_at + period)
        on conflict (kind, unique_key) do update
        set job_id = excluded.job_id, ends_at = excluded.ends_at
        where held.ends_at <= now();
        if found then
            return true;
        end if;
    end if;
    delete from reveille.jobs where jobs.id = hold_unique_key.id;
    return false;
end
$$;

COMMENT ON FUNCTION reveille.hold_unique_key(id bigint, period interval) IS 'For reveille.enqueue: lets the job that it has just inserted hold the job''s unique key for a period (null: while the job is live). Returns true if the job now holds the unique key. If another job holds the unique key for a period, deletes the new job and returns false.';

CREATE FUNCTION reveille.inputs(job bigint, after_label text DEFAULT ''::text, most integer DEFAULT 100, only_label text DEFAULT NULL::text, OUT label text, OUT name text, OUT prerequisite bigint, OUT outcome text, OUT result jsonb) RETURNS SETOF record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
begin
    return query
    select
        dependencies.label, members.name, dependencies.on_job,
        coalesce(members.outcome, ends.outcome, finished.outcome, dead.outcome),
        coalesce(members.result, ends.result, finished.result)
    from reveille.dependencies
    left join reveille.workflow_jobs as members on members.job = dependencies.on_job
    left join reveille.linked_ends as ends on ends.job = dependencies.on_job and members.outcome is null
    left join lateral (
        select finished_jobs.outcome, finished_jobs.result from reveille.finished_jobs
        where finished_jobs.id = dependencies.on_job and members.job is null
        limit 1
    ) as finished on true
    left join lateral (
        select 'dead' as outcome from reveille.dead_jobs
        where dead_jobs.id = dependencies.on_job and members.job is null
    ) as dead on true
    where dependencies.waiter = inputs.job and dependencies.label > after_label
        and (only_label is null or dependencies.label = only_label)
    order by dependencies.label
    limit most;
end
$$;

COMMENT ON FUNCTION reveille.inputs(job bigint, after_label text, most integer, only_label text, OUT label text, OUT name text, OUT prerequisite bigint, OUT outcome text, OUT result jsonb) IS 'Returns what a job has waited for, in the order of the labels: up to `most` rows with labels after after_label, or the one with only_label. outcome is null while the prerequisite has not ended. The result of a job without a workflow is known as long as its queue''s history.';

CREATE FUNCTION reveille.isolate_job(id bigint, others_pass boolean, OUT code text, OUT error text, OUT buried boolean) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    tried record;
begin
    perform from reveille.jobs where jobs.id = isolate_job.id and jobs.reserved_by is null for update skip locked;
    if not found then
        return;
    end if;
    begin
        update reveille.jobs
        set reserved_at = now(), reserved_by = 0, attempts = jobs.attempts + 1,
            unique_key = case when jobs.unique_until = 'started' then null else jobs.unique_key end,
            unique_until = case when jobs.unique_until = 'started' then null else jobs.unique_until end
        where jobs.id = isolate_job.id
        -- The conversions to UTF-8 fail on values that cannot be sent to a worker.
        returning
            convert_to(jobs.kind, 'UTF8'), convert_to(jobs.payload::text, 'UTF8'), convert_to(jobs.key, 'UTF8'),
            convert_to(jobs.tags::text, 'UTF8'), convert_to(jobs.metadata::text, 'UTF8'),
            extract(epoch from jobs.timeout)
        into tried;
        set constraints all immediate;
        raise exception using errcode = 'RVOK0';
    exception when others then
        get stacked diagnostics code = returned_sqlstate, error = message_text;
    end;
    -- The row is not at fault: the claim succeeded (RVOK0), or it failed for a reason outside the row, such as the
    -- server, the connection, the schema or a lock. The Rust function Error::is_about_data has the same list.
    if code = 'RVOK0'
        or left(code, 2) in ('08', '0A', '25', '26', '28', '34', '3D', '3F', '40', '42', '53', '55', '57')
    then
        code := null;
        error := null;
        return;
    end if;
    if getdatabaseencoding() <> 'UTF8' then
        -- The error's text may quote bytes that cannot be sent to a worker.
        error := regexp_replace(error, '[^ -~]', '?', 'g');
    end if;
    buried := (others_pass or left(code, 2) in ('22', '54') or code in ('XX001', 'XX002'))
        and (
            reveille.bury_unclaimed(isolate_job.id, code, error, true)
            or reveille.bury_unclaimed(isolate_job.id, code, error, false)
        );
    begin
        delete from reveille.passed_over
        where passed_over.id = isolate_job.id or passed_over.seen_at < now() - interval '1 day';
        if not buried then
            insert into reveille.passed_over (id, queue, code, error)
            select jobs.id, jobs.queue, isolate_job.code, isolate_job.error
            from reveille.jobs
            where jobs.id = isolate_job.id;
        end if;
    exception when insufficient_privilege or unique_violation then
        -- The worker's role lacks the privileges on reveille.passed_over, or another worker has just listed the job.
        null;
    end;
end
$$;

COMMENT ON FUNCTION reveille.isolate_job(id bigint, others_pass boolean, OUT code text, OUT error text, OUT buried boolean) IS 'Tries to claim a job, and rolls the claim back. If the claim fails because of the job''s row, returns the error; buried is true if the job was made a dead job. Otherwise returns nulls. For workers.';

CREATE FUNCTION reveille.keep_totals() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    insert into reveille.totals as totals (queue, completed, failed, wait_seconds, run_seconds)
    select
        queue, sum(completed), sum(failed), sum(round(wait_seconds::numeric, 6)), sum(round(run_seconds::numeric, 6))
    from deleted
    where worker <> 0
    group by queue
    order by queue
    on conflict (queue) do update
    set completed = totals.completed + excluded.completed,
        failed = totals.failed + excluded.failed,
        wait_seconds = totals.wait_seconds + excluded.wait_seconds,
        run_seconds = totals.run_seconds + excluded.run_seconds;
    return null;
end
$$;

COMMENT ON FUNCTION reveille.keep_totals() IS 'Adds the rows that are deleted from reveille.counters to reveille.totals. Leaves out the rows of worker 0, because the totals already contain their counts.';

CREATE FUNCTION reveille.largest_payload() RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce(nullif(current_setting('reveille.max_payload', true), '')::bigint, 1048576)
$$;

COMMENT ON FUNCTION reveille.largest_payload() IS 'Returns the largest payload in bytes that this session may enqueue: the setting reveille.max_payload, or else 1 MiB.';

CREATE FUNCTION reveille.limits_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if tg_op = 'INSERT' and new.limited is null or tg_op = 'DELETE' and old.limited is null then
        return null;
    end if;
    perform reveille.ring(array[case when tg_op = 'DELETE' then old.name else new.name end]);
    return null;
end
$$;

COMMENT ON FUNCTION reveille.limits_changed() IS 'Wakes the workers of a queue whose limits change, since more jobs may start.';

CREATE FUNCTION reveille.link_prerequisite(id bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    ended text;
begin
    -- The queries follow the direction in which a job moves, each with a snapshot of its own. A revived job moves back,
    -- so all are repeated once.
    for round in 1..2 loop
        -- An update, not a lock: with an older snapshot it fails with 40001 if the job has ended meanwhile.
        update reveille.blocked_jobs set awaited = awaited where blocked_jobs.id = link_prerequisite.id;
        if found then
            return;
        end if;
        update reveille.jobs set linked = true where jobs.id = link_prerequisite.id;
        if found then
            return;
        end if;
        update reveille.dead_jobs set linked = true where dead_jobs.id = link_prerequisite.id;
        ended := case when found then 'dead' end;
        if ended is null then
            select outcome into ended from reveille.workflow_jobs
            where workflow_jobs.job = link_prerequisite.id and outcome in ('completed', 'cancelled', 'skipped');
        end if;
        if ended is null then
            select outcome into ended from reveille.linked_ends
            where linked_ends.job = link_prerequisite.id
                and outcome in ('completed', 'cancelled', 'skipped', 'purged');
        end if;
        if ended is null then
            select outcome into ended from reveille.finished_jobs where finished_jobs.id = link_prerequisite.id;
        end if;
        if ended is not null then
            -- The end is noted once more, so that a worker applies it to the new dependency.
            insert into reveille.linked_ends (job, outcome, workflow)
            values (link_prerequisite.id, ended, (
                select members.workflow from reveille.workflow_jobs as members
                where members.job = link_prerequisite.id
            ))
            on conflict (job) do update set ended_at = excluded.ended_at;
            perform reveille.tell_of_ends();
            return;
        end if;
    end loop;
    raise exception 'job % is not known: it never existed, or its history is gone', link_prerequisite.id
        using errcode = 'no_data_found', hint = 'The queue''s retention decides how long a finished job is known.';
end
$$;

COMMENT ON FUNCTION reveille.link_prerequisite(id bigint) IS 'For a new dependency: locks a job until the caller commits and marks it as linked. If the job has ended, notes its end once more.';

CREATE FUNCTION reveille.linked_work_waits() RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select exists (select from reveille.linked_ends)
        or exists (select from reveille.workflows where state = 'cancelling' and finished_at is null)
$$;

COMMENT ON FUNCTION reveille.linked_work_waits() IS 'True if reveille.apply_linked_ends may have something to do. For workers.';

CREATE FUNCTION reveille.live_holder(kind text, unique_key text) RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET enable_seqscan TO 'off'
    AS $$
begin
    return (
        select jobs.id from reveille.jobs
        where jobs.kind operator(pg_catalog.=) live_holder.kind
            and jobs.unique_key operator(pg_catalog.=) live_holder.unique_key
    );
end
$$;

COMMENT ON FUNCTION reveille.live_holder(kind text, unique_key text) IS 'Returns the id of the live job that holds a unique key of a kind; null if there is none.';

CREATE FUNCTION reveille.make_due(ids bigint[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

COMMENT ON FUNCTION reveille.make_due(ids bigint[]) IS 'Makes waiting jobs due now, since an event has come. A job that the server refuses to change goes on at the end of its wait. The caller has locked the rows of the jobs. Returns the number of changed jobs.';

CREATE FUNCTION reveille.mark_sleeper() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    select not bell into new.silent from reveille.queues where name = new.queue;
    new.silent := coalesce(new.silent, false);
    -- The sequence changes at once, not at the commit, so an enqueue sees the change whatever its snapshot shows. Until
    -- this insert is committed, its lock on reveille.sleepers keeps reveille.note_nobody_sleeps() from setting the
    -- sequence to 0 again.
    perform setval('reveille.somebody_sleeps', 1)
    where pg_sequence_last_value('reveille.somebody_sleeps') is not distinct from 0;
    return new;
end
$$;

COMMENT ON FUNCTION reveille.mark_sleeper() IS 'Notes that a worker sleeps. Marks the worker''s row as silent if the queue''s bell is switched off.';

CREATE FUNCTION reveille.mark_sleepers() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    changed constant text := case when tg_op = 'DELETE' then old.name else new.name end;
    is_silent constant boolean := tg_op <> 'DELETE' and not new.bell;
begin
    if is_silent = (tg_op <> 'INSERT' and not old.bell) then
        return null;
    end if;
    -- Workers that are just going to sleep may have read the queue's old setting. Once the lock below is granted, their
    -- transactions have ended, and the update sees their rows.
    lock table reveille.sleepers in share row exclusive mode;
    update reveille.sleepers set silent = is_silent where queue = changed and silent <> is_silent;
    return null;
end
$$;

COMMENT ON FUNCTION reveille.mark_sleepers() IS 'Marks the workers that sleep on a queue as silent, or not silent, when the queue''s bell is switched off or on.';

CREATE FUNCTION reveille.move_blocked(ids bigint[], fate text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

COMMENT ON FUNCTION reveille.move_blocked(ids bigint[], fate text) IS 'Moves blocked jobs to where they belong: `started`, `skipped` or `cancelled`. A job that the server refuses there becomes a dead job. The caller has locked the rows of the jobs, and those of their workflows.';

CREATE FUNCTION reveille.note_end(job bigint, outcome text, was_blocked boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
begin
    insert into reveille.linked_ends as ends (job, outcome, was_blocked, workflow)
    values (note_end.job, note_end.outcome, note_end.was_blocked, (
        select members.workflow from reveille.workflow_jobs as members where members.job = note_end.job
    ))
    on conflict (job) do update
    set outcome = excluded.outcome, result = excluded.result, was_blocked = ends.was_blocked or excluded.was_blocked,
        ended_at = excluded.ended_at;
    perform reveille.tell_of_ends();
end
$$;

COMMENT ON FUNCTION reveille.note_end(job bigint, outcome text, was_blocked boolean) IS 'Notes the end of a linked job in reveille.linked_ends, and notifies the workers.';

CREATE FUNCTION reveille.note_limits() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- This condition repeats that of the generated column `limited`, which Postgres computes only after this trigger.
    if not new.ordered
        and coalesce(new.max_running, new.max_running_per_key, new.rate_limit, new.rate_per_key) is null
    then
        new.limited_since := null;
    elsif tg_op = 'UPDATE' and old.name = new.name and old.limited_since is not null then
        new.limited_since := old.limited_since;
    else
        new.limited_since := clock_timestamp();
    end if;
    return new;
end
$$;

COMMENT ON FUNCTION reveille.note_limits() IS 'Notes the time from which a queue has had limits or an order.';

CREATE FUNCTION reveille.note_nobody_sleeps() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- This function refuses a transaction that has changed anything: a rollback would undo the changes, but not the
    -- sequence's new value. It also refuses isolation levels other than read committed, because their snapshots may be
    -- older than the rows of the workers that sleep now.
    if pg_current_xact_id_if_assigned() is not null or current_setting('transaction_isolation') <> 'read committed'
    then
        return false;
    end if;
    begin
        -- While this session holds the lock, no worker can go to sleep. If a worker is just going to sleep, the request
        -- for the lock fails at once.
        lock table reveille.sleepers in share mode nowait;
    exception when lock_not_available then
        return false;
    end;
    if exists (select from reveille.sleepers) then
        return false;
    end if;
    perform setval('reveille.somebody_sleeps', 0)
    where pg_sequence_last_value('reveille.somebody_sleeps') is distinct from 0;
    return true;
end
$$;

COMMENT ON FUNCTION reveille.note_nobody_sleeps() IS 'If no worker sleeps, notes that inserts need not search for sleeping workers. Returns true if no worker sleeps, and false if a worker sleeps or may sleep. Call this function in a separate transaction, as workers do.';

CREATE FUNCTION reveille.open_workflow(name text, unique_key text DEFAULT NULL::text, input jsonb DEFAULT '{}'::jsonb, parent_id bigint DEFAULT NULL::bigint, schedule_id bigint DEFAULT NULL::bigint, OUT id bigint, OUT existed boolean) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    perform reveille.check_may_enqueue();
    if (length(open_workflow.name) between 1 and 128) is not true then
        raise exception 'a workflow''s name must have 1 to 128 characters' using errcode = 'invalid_parameter_value';
    end if;
    if octet_length(open_workflow.unique_key) not between 1 and 512 then
        raise exception 'unique_key must have 1 to 512 bytes' using errcode = 'invalid_parameter_value';
    end if;
    if octet_length(open_workflow.input::text) > 1048576 then
        raise exception 'the input of a workflow is larger than 1 MiB'
            using errcode = 'program_limit_exceeded', hint = 'Keep large data elsewhere and pass a reference.';
    end if;
    loop
        insert into reveille.workflows (name, unique_key, holds_key, input, parent_id, schedule_id)
        values (
            open_workflow.name, open_workflow.unique_key, open_workflow.unique_key is not null,
            coalesce(open_workflow.input, '{}'), open_workflow.parent_id, open_workflow.schedule_id
        )
        on conflict (name, unique_key) where holds_key do nothing
        returning workflows.id into id;
        existed := not found;
        if not existed then
            return;
        end if;
        select workflows.id into id
        from reveille.workflows
        where workflows.name = open_workflow.name and workflows.unique_key = open_workflow.unique_key and holds_key;
        if found then
            return;
        end if;
        -- The workflow that held the unique key has ended meanwhile.
    end loop;
end
$$;

COMMENT ON FUNCTION reveille.open_workflow(name text, unique_key text, input jsonb, parent_id bigint, schedule_id bigint, OUT id bigint, OUT existed boolean) IS 'Begins a workflow that is filled in parts, by reveille.add_to_workflow. Jobs that wait for others do not start before reveille.seal_workflow. If a workflow of the name with the unique_key has not ended, `existed` is true, and `id` is that workflow''s.';

CREATE FUNCTION reveille.pass_given_ids() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
    ids constant regclass := 'reveille.jobs_id_seq';
    -- Ids from this number on are ignored, because they were written by hand. If the sequence were moved past them, it
    -- could be close to its end.
    too_large constant bigint := 4611686018427387904;
    largest bigint;
begin
    -- This is one statement, because its snapshot is then older than its read of the sequence: the statement sees no id
    -- that was given out after that read. Usually no id is above the sequence's value. The indexes show this, and the
    -- statement ends at once.
    perform from (select coalesce(pg_sequence_last_value(ids), 0)) as given (last)
    where exists (select from reveille.jobs where jobs.id > given.last and jobs.id < too_large)
        or exists (select from reveille.dead_jobs where dead_jobs.id > given.last and dead_jobs.id < too_large)
        or exists (select from reveille.blocked_jobs where blocked_jobs.id > given.last and blocked_jobs.id < too_large)
        or exists (
            select from reveille.workflow_jobs where workflow_jobs.job > given.last and workflow_jobs.job < too_large
        )
        or exists (
            select from reveille.finished_jobs where finished_jobs.id > given.last and finished_jobs.id < too_large
        );
    if not found then
        return null;
    end if;
    select greatest(
        (select max(jobs.id) from reveille.jobs where jobs.id < too_large),
        (select max(dead_jobs.id) from reveille.dead_jobs where dead_jobs.id < too_large),
        (select max(blocked_jobs.id) from reveille.blocked_jobs where blocked_jobs.id < too_large),
        (select max(workflow_jobs.job) from reveille.workflow_jobs where workflow_jobs.job < too_large),
        (select max(finished_jobs.id) from reveille.finished_jobs where finished_jobs.id < too_large)
    ) into largest;
    -- The lock lets only one session at a time move the sequence. Otherwise a second session could move the sequence
    -- back, below ids that were given out after the first session had moved it.
    lock table reveille.dead_jobs in share update exclusive mode;
    if largest <= pg_sequence_last_value(ids) then
        return null;
    end if;
    -- A margin of 1,000 covers the ids that other sessions take between the condition above and this statement.
    return setval(ids, largest + 1000);
end
$$;

COMMENT ON FUNCTION reveille.pass_given_ids() IS 'Moves the sequence of job ids past all ids in use, if some are above the sequence''s value, as after a restore. Ids from 2^62 on do not count. Returns the sequence''s new value; null if the sequence was not moved. Upkeep calls this function.';

CREATE FUNCTION reveille.pass_over_known_chore() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    return case when exists (select from reveille.chores where name = new.name) then null else new end;
end
$$;

COMMENT ON FUNCTION reveille.pass_over_known_chore() IS 'Skips an inserted chore that the table already has, as when a dump of the data is restored.';

CREATE FUNCTION reveille.pass_over_known_migration() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    known record;
begin
    select name, checksum into known from reveille.schema_history where version = new.version;
    if not found then
        return new;
    end if;
    if known.name = new.name and known.checksum = new.checksum then
        return null;
    end if;
    raise exception 'migration % is % here and % in the data', new.version, known.name, new.name
        using errcode = 'unique_violation', hint = 'Restore into a schema that the same version of Reveille created.';
end
$$;

COMMENT ON FUNCTION reveille.pass_over_known_migration() IS 'Skips an inserted migration that the table already records, as when a dump of the data is restored. Refuses a migration that the table records with another name or checksum.';

CREATE FUNCTION reveille.pause(queue text DEFAULT NULL::text, kind text DEFAULT NULL::text, key text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    if coalesce(pause.kind, pause.key) is not null then
        insert into reveille.pauses (queue, kind, key) values (pause.queue, pause.kind, pause.key)
        on conflict do nothing;
        return;
    end if;
    if pause.queue is null then
        raise exception 'pause needs a queue, a kind or a key' using errcode = 'invalid_parameter_value';
    end if;
    insert into reveille.queues (name, paused_at) values (pause.queue, now())
    on conflict (name) do update set paused_at = coalesce(queues.paused_at, excluded.paused_at);
    -- This notification keeps jobs that are claimed already from starting. If no notification comes, the workers' next
    -- heartbeats find the pause.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.pause', pause.queue);
    end if;
end
$$;

COMMENT ON FUNCTION reveille.pause(queue text, kind text, key text) IS 'Pauses a queue, or a kind, a key or both, in one queue or in all: no worker starts these jobs until they are resumed. Running jobs go on.';

CREATE FUNCTION reveille.pause_began() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- A worker that receives this notification releases the jobs that it has claimed and not started. Then it claims
    -- them again, and the claim sees the pause.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.pause', covered.queue)
        from (
            select began.queue from began where began.queue is not null
            union
            select unnest(workers.queues)
            from reveille.workers
            where exists (select from began where began.queue is null)
        ) as covered;
    end if;
    return null;
end
$$;

COMMENT ON FUNCTION reveille.pause_began() IS 'Notifies the workers of the queues in which a kind or a key is paused.';

CREATE FUNCTION reveille.pause_ended() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- Workers unpark further jobs once they find no due job, and so does upkeep.
    perform reveille.unpark(10000);
    return null;
end
$$;

COMMENT ON FUNCTION reveille.pause_ended() IS 'Unparks up to 10,000 jobs of the ended pauses.';

CREATE FUNCTION reveille.pause_of(queue text, kind text, key text) RETURNS bigint
    LANGUAGE plpgsql STABLE
    AS $$
begin
    return (
        select pauses.id
        from reveille.pauses
        where coalesce(pauses.queue, '') operator(pg_catalog.=) any (array[pause_of.queue, ''])
            and coalesce(pauses.key, '') operator(pg_catalog.=) any (array[coalesce(pause_of.key, ''), ''])
            and coalesce(pauses.kind, '') operator(pg_catalog.=) any (array[pause_of.kind, ''])
        limit 1
    );
end
$$;

COMMENT ON FUNCTION reveille.pause_of(queue text, kind text, key text) IS 'Returns the id of a pause in reveille.pauses that covers the jobs of this queue, kind and key; null if there is none.';

CREATE FUNCTION reveille.pause_schedule(name text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    update reveille.schedules set paused_at = coalesce(paused_at, now()) where schedules.name = pause_schedule.name;
    return found;
end
$$;

COMMENT ON FUNCTION reveille.pause_schedule(name text) IS 'Pauses a schedule: it enqueues nothing until it is resumed. Returns true if the schedule exists.';

CREATE FUNCTION reveille.period_holder(kind text, unique_key text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET enable_seqscan TO 'off'
    AS $$
declare
    holder pg_catalog.int8;
begin
    holder := (
        select held.job_id from reveille.unique_periods as held
        where held.kind operator(pg_catalog.=) period_holder.kind
            and held.unique_key operator(pg_catalog.=) period_holder.unique_key
            and held.ends_at operator(pg_catalog.>) pg_catalog.now()
    );
    -- At an isolation level other than read committed, the query above may miss a period that is newer than the
    -- snapshot. The insert below of a second row still meets the period's row, in the unique index. The insert then
    -- fails with a serialization failure (40001), and the caller tries the transaction again. The second row is
    -- inserted only if the caller has already inserted its job. This way all transactions wait for each other in one
    -- order: first for the job's unique key, then for the period.
    if holder is null
        and pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.<>) 'read committed'
    then
        perform from reveille.jobs
        where jobs.kind operator(pg_catalog.=) period_holder.kind
            and jobs.unique_key operator(pg_catalog.=) period_holder.unique_key
            and jobs.created_at operator(pg_catalog.=) pg_catalog.now() and jobs.reserved_by is null;
        if found then
            insert into reveille.unique_periods (kind, unique_key, job_id, ends_at)
            values (period_holder.kind, period_holder.unique_key, 0, '-infinity')
            on conflict do nothing;
            delete from reveille.unique_periods as held
            where held.kind operator(pg_catalog.=) period_holder.kind
                and held.unique_key operator(pg_catalog.=) period_holder.unique_key
                and held.job_id operator(pg_catalog.=) 0::pg_catalog.int8;
        end if;
    end if;
    return holder;
end
$$;

COMMENT ON FUNCTION reveille.period_holder(kind text, unique_key text) IS 'Returns the id of the job that holds a unique key of a kind for a period that is not over yet; null if there is none. If the caller has enqueued a job with this unique key, and another job''s period is newer than the caller''s snapshot, the call fails with 40001: try the transaction again.';

CREATE FUNCTION reveille.plain_jobs(jobs jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce(jsonb_agg(
        case
            when jsonb_typeof(given.job) = 'object'
            then given.job - array['name', 'after', 'before', 'fires_on', 'on_dead', 'wait_for']
            else given.job
        end
        order by given.place
    ), '[]')
    from jsonb_array_elements(jobs) with ordinality as given (job, place)
$$;

COMMENT ON FUNCTION reveille.plain_jobs(jobs jsonb) IS 'Returns the jobs of a workflow without the keys that link them.';

CREATE FUNCTION reveille.read_dependencies(jobs jsonb) RETURNS TABLE(place bigint, direction text, name text, id bigint, label text, fires_on text, on_dead text, edge jsonb)
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select
        given.place, directions.direction,
        case jsonb_typeof(edges.edge) when 'string' then edges.edge #>> '{}' else edges.edge ->> 'name' end,
        case when jsonb_typeof(edges.edge -> 'id') = 'number' then (edges.edge -> 'id')::bigint end,
        case when jsonb_typeof(edges.edge) = 'object' then edges.edge ->> 'label' end,
        coalesce(case when jsonb_typeof(edges.edge) = 'object' then edges.edge ->> 'fires_on' end,
            given.job ->> 'fires_on', 'completed'),
        coalesce(case when jsonb_typeof(edges.edge) = 'object' then edges.edge ->> 'on_dead' end,
            given.job ->> 'on_dead', 'hold'),
        edges.edge
    from jsonb_array_elements(jobs) with ordinality as given (job, place)
    cross join (values ('after'), ('before')) as directions (direction)
    cross join lateral jsonb_array_elements(case
        when jsonb_typeof(given.job) = 'object' and jsonb_typeof(given.job -> directions.direction) = 'array'
        then given.job -> directions.direction
        else '[]'
    end) as edges (edge)
$$;

COMMENT ON FUNCTION reveille.read_dependencies(jobs jsonb) IS 'Reads the keys `after` and `before` of an array of jobs: one row per dependency.';

CREATE FUNCTION reveille.read_json_jobs(jobs jsonb, are_plain boolean) RETURNS TABLE(place bigint, job jsonb, kind text, payload jsonb, queue text, due timestamp with time zone, priority smallint, max_attempts integer, timeout interval, unique_key text, unique_mode text, unique_until text, key text, tags text[], metadata jsonb, parent_id bigint)
    LANGUAGE sql STABLE
    AS $$
    select
        given.place, given.job,
        given.job operator(pg_catalog.->>) 'kind',
        coalesce(given.job operator(pg_catalog.->) 'payload', '{}'),
        coalesce(given.job operator(pg_catalog.->>) 'queue', 'default'),
        case
            when read_json_jobs.are_plain then pg_catalog.now()
            when given.job operator(pg_catalog.->>) 'available_at' is not null
            then (given.job operator(pg_catalog.->>) 'available_at')::pg_catalog.timestamptz
            when pg_catalog.jsonb_typeof(given.job operator(pg_catalog.->) 'delay') operator(pg_catalog.=) 'number'
            then pg_catalog.now() operator(pg_catalog.+) pg_catalog.make_interval(
                secs => (given.job operator(pg_catalog.->>) 'delay')::pg_catalog.float8
            )
            else pg_catalog.now() operator(pg_catalog.+)
                coalesce((given.job operator(pg_catalog.->>) 'delay')::pg_catalog.interval, '0')
        end,
        case
            when read_json_jobs.are_plain or given.job operator(pg_catalog.->>) 'priority' is null
            then 2::pg_catalog.int2
            else (
                (pg_catalog.array_position(
                    array['0', '1', '2', '3', 'urgent', 'high', 'normal', 'low'],
                    given.job operator(pg_catalog.->>) 'priority'
                ) operator(pg_catalog.-) 1) operator(pg_catalog.%) 4
            )::pg_catalog.int2
        end,
        case
            when read_json_jobs.are_plain then 20
            else coalesce((given.job operator(pg_catalog.->>) 'max_attempts')::pg_catalog.int4, 20)
        end,
        case
            when read_json_jobs.are_plain then null
            when pg_catalog.jsonb_typeof(given.job operator(pg_catalog.->) 'timeout') operator(pg_catalog.=) 'number'
            then pg_catalog.make_interval(secs => (given.job operator(pg_catalog.->>) 'timeout')::pg_catalog.float8)
            else (given.job operator(pg_catalog.->>) 'timeout')::pg_catalog.interval
        end,
        case when not read_json_jobs.are_plain then given.job operator(pg_catalog.->>) 'unique_key' end,
        coalesce(given.job operator(pg_catalog.->>) 'unique_mode', 'keep'),
        coalesce(given.job operator(pg_catalog.->>) 'unique_until', 'finished'),
        case when not read_json_jobs.are_plain then given.job operator(pg_catalog.->>) 'key' end,
        case
            when read_json_jobs.are_plain then null
            when pg_catalog.jsonb_typeof(given.job operator(pg_catalog.->) 'tags') operator(pg_catalog.=) 'array'
            then array(select pg_catalog.jsonb_array_elements_text(given.job operator(pg_catalog.->) 'tags'))
        end,
        case
            when read_json_jobs.are_plain then null
            when pg_catalog.jsonb_typeof(given.job operator(pg_catalog.->) 'metadata') operator(pg_catalog.=) 'object'
            then given.job operator(pg_catalog.->) 'metadata'
        end,
        case
            when not read_json_jobs.are_plain then (given.job operator(pg_catalog.->>) 'parent_id')::pg_catalog.int8
        end
    from pg_catalog.jsonb_array_elements(read_json_jobs.jobs) with ordinality as given (job, place)
$$;

COMMENT ON FUNCTION reveille.read_json_jobs(jobs jsonb, are_plain boolean) IS 'For reveille.enqueue_json: reads an array of jobs that can be stored. are_plain: no job has other keys than kind, payload and queue.';

CREATE FUNCTION reveille.reads_any(VARIADIC relations text[]) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select bool_or(has_table_privilege(
        coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, relation::regclass, 'select'
    ))
    from unnest(relations) as relation
$$;

COMMENT ON FUNCTION reveille.reads_any(VARIADIC relations text[]) IS 'Returns true if the caller may read one of these tables or views.';

CREATE FUNCTION reveille.refusal_of_json_job(job jsonb, max_payload bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    known constant text[] := array[
        'kind', 'payload', 'queue', 'delay', 'available_at', 'priority', 'max_attempts', 'timeout', 'unique_key',
        'unique_mode', 'unique_until', 'key', 'tags', 'metadata', 'parent_id', 'max_payload'
    ];
    articles constant jsonb := jsonb_build_object(
        'array', 'an array', 'object', 'an object', 'string', 'a string', 'number', 'a number', 'boolean', 'a boolean'
    );
    priorities constant text := '0 (urgent), 1 (high), 2 (normal), 3 (low), or one of these names';
    name text;
    value jsonb;
    type text;
    given text;
    wanted text;
    length interval;
    number bigint;
    due timestamptz;
    largest bigint;
    size bigint;
begin
    if jsonb_typeof(job) <> 'object' then
        return format('must be an object, not %s', coalesce(articles ->> jsonb_typeof(job), 'null'));
    end if;
    for name, value in select member.key, member.value from jsonb_each(job) as member loop
        if name <> all (known) then
            return format('key %s: is unknown; known are %s', to_json(left(name, 60)), array_to_string(known, ', '));
        end if;
        type := jsonb_typeof(value);
        continue when type = 'null' or name = 'payload';
        wanted := case
            when name in ('delay', 'timeout') and type not in ('string', 'number')
            then 'a length of time: a string such as "5 minutes", or a number of seconds'
            when name = 'priority' and type not in ('string', 'number') then priorities
            when name in ('max_attempts', 'parent_id', 'max_payload') and type <> 'number' then 'a whole number'
            when name = 'tags' and type <> 'array' then 'an array of strings'
            when name = 'metadata' and type <> 'object' then 'an object'
            when name in ('kind', 'queue', 'available_at', 'unique_key', 'unique_mode', 'unique_until', 'key')
                and type <> 'string'
            then 'a string'
        end;
        if wanted is not null then
            return format('key "%s": must be %s, not %s', name, wanted, articles ->> type);
        end if;

        given := value #>> '{}';
        length := null;
        number := null;
        due := null;
        begin
            if name in ('delay', 'timeout') or name = 'unique_until' and given not in ('started', 'finished') then
                length := case type when 'number' then make_interval(secs => given::float8) else given::interval end;
                -- Adding the length of time fails if no time is so late.
                due := now() + length;
            elsif name = 'available_at' then
                due := given::timestamptz;
            elsif name in ('max_attempts', 'parent_id', 'max_payload') then
                number := given::bigint;
            end if;
        exception when data_exception then
            null; -- One of the next conditions refuses the value.
        end;
        wanted := case
            when name = 'delay' and (length >= interval '0' and isfinite(due)) is not true
            then 'a length of time from 0 on: a string such as "5 minutes", or a number of seconds'
            when name = 'timeout' and (length > interval '0') is not true
            then 'a positive length of time: a string such as "5 minutes", or a number of seconds'
            when name = 'unique_until' and given not in ('started', 'finished')
                and (length > interval '0' and isfinite(length)) is not true
            then '"started", "finished" or a positive length of time such as "1 hour"'
            when name = 'available_at' and isfinite(due) is not true
            then 'a time that Postgres reads, such as "2026-12-24 18:00+01"'
            when name = 'priority' and given not in ('0', '1', '2', '3', 'urgent', 'high', 'normal', 'low')
            then priorities
            when name = 'unique_mode' and given not in ('keep', 'replace', 'debounce')
            then '"keep", "replace" or "debounce"'
            when name = 'max_attempts' and (number between 1 and 2147483647) is not true
            then 'a whole number from 1 to 2147483647'
            when name = 'parent_id' and number is null then 'a whole number, the id of a job'
            when name = 'max_payload' and (number >= 0) is not true then 'a whole number of bytes'
        end;
        if wanted is not null then
            return format('key "%s": must be %s, not %s', name, wanted, left(value::text, 60));
        end if;

        wanted := case
            when name in ('kind', 'queue') and (given = '' or length(given) > 128)
            then format('1 to 128 characters, not %s', length(given))
            when name in ('key', 'unique_key') and (given = '' or octet_length(given) > 512)
            then format('1 to 512 bytes, not %s', octet_length(given))
            when name = 'tags' and jsonb_array_length(value) > 64
            then format('at most 64 strings, not %s', jsonb_array_length(value))
            when name = 'tags' and (select sum(octet_length(tag)) > 16384 from jsonb_array_elements_text(value) as tag)
            then 'at most 16 KiB together (tags_are_at_most_16_kib)'
            when name = 'metadata' and octet_length(given) > 262144
            then format('at most 262144 bytes, not %s (metadata_is_at_most_256_kib)', octet_length(given))
        end;
        if wanted is not null then
            return format('key "%s": must have %s', name, wanted);
        end if;
        if name = 'tags' and jsonb_path_exists(value, 'strict $[*] ? (@.type() != "string")') then
            return 'key "tags": must be an array of strings, and each of its elements a string';
        end if;
    end loop;

    -- As reveille.enqueue does, this leaves out payloads that are stored in 512 bytes.
    largest := least(coalesce((job ->> 'max_payload')::bigint, refusal_of_json_job.max_payload), 8388608);
    size := case
        when pg_column_size(job -> 'payload') > 512 or largest < 512 then octet_length((job -> 'payload')::text)
    end;
    return case
        when job ->> 'kind' is null then 'key "kind": is missing'
        when job ->> 'delay' is not null and job ->> 'available_at' is not null
        then 'key "available_at": excludes the key "delay"; give one of them'
        when job ->> 'unique_until' not in ('started', 'finished') and job ->> 'unique_key' is null
        then 'key "unique_until": a length of time needs a unique_key; give one'
        when size > largest
        then format(
            'key "payload": must have at most %s bytes, not %s; keep large data elsewhere and pass a reference, or '
            'raise the limit by the key "max_payload"', largest, size
        )
    end;
end
$_$;

COMMENT ON FUNCTION reveille.refusal_of_json_job(job jsonb, max_payload bigint) IS 'For reveille.enqueue_json: returns the key of a job that cannot be stored, and why; null if it can be stored. max_payload is the largest payload in bytes, for a job that does not set its own.';

CREATE FUNCTION reveille.refusal_of_json_jobs(jobs jsonb, max_payload bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    are_sound boolean;
    given record;
    refusal text;
begin
    -- This check of all jobs at once is quick. It also fails for some jobs that can be stored.
    begin
        select bool_and((
            new.job - array[
                'kind', 'payload', 'queue', 'delay', 'available_at', 'priority', 'max_attempts', 'timeout',
                'unique_key', 'unique_mode', 'unique_until', 'key', 'tags', 'metadata', 'parent_id', 'max_payload'
            ] = '{}'
            and jsonb_typeof(new.job -> 'kind') = 'string' and new.kind <> '' and octet_length(new.kind) <= 128
            and coalesce(jsonb_typeof(new.job -> 'queue'), 'null') in ('string', 'null')
            and new.queue <> '' and octet_length(new.queue) <= 128
            and coalesce(jsonb_typeof(new.job -> 'delay'), 'null') in ('string', 'number', 'null')
            and coalesce(jsonb_typeof(new.job -> 'available_at'), 'null') in ('string', 'null')
            and (new.job ->> 'available_at' is null or new.job ->> 'delay' is null)
            and (new.job ->> 'available_at' is not null or new.due >= now()) and isfinite(new.due)
            and coalesce(jsonb_typeof(new.job -> 'priority'), 'null') in ('string', 'number', 'null')
            and new.priority is not null
            and coalesce(jsonb_typeof(new.job -> 'max_attempts'), 'null') in ('number', 'null')
            and new.max_attempts > 0
            and coalesce(jsonb_typeof(new.job -> 'timeout'), 'null') in ('string', 'number', 'null')
            and coalesce(new.timeout > interval '0', true)
            and coalesce(jsonb_typeof(new.job -> 'unique_key'), 'null') in ('string', 'null')
            and coalesce(octet_length(new.unique_key) between 1 and 512, true)
            and coalesce(jsonb_typeof(new.job -> 'unique_mode'), 'null') in ('string', 'null')
            and new.unique_mode in ('keep', 'replace', 'debounce')
            and coalesce(jsonb_typeof(new.job -> 'unique_until'), 'null') in ('string', 'null')
            and new.unique_until in ('started', 'finished')
            and coalesce(jsonb_typeof(new.job -> 'key'), 'null') in ('string', 'null')
            and coalesce(octet_length(new.key) between 1 and 512, true)
            and coalesce(jsonb_typeof(new.job -> 'tags'), 'null') in ('array', 'null')
            and case
                when jsonb_typeof(new.job -> 'tags') = 'array'
                then jsonb_array_length(new.job -> 'tags') <= 64
                    and octet_length((new.job -> 'tags')::text) <= 16384
                    and not jsonb_path_exists(new.job -> 'tags', 'strict $[*] ? (@.type() != "string")')
                else true
            end
            and coalesce(jsonb_typeof(new.job -> 'metadata'), 'null') in ('object', 'null')
            and (new.metadata is null or pg_column_size(new.metadata) <= 512)
            and coalesce(jsonb_typeof(new.job -> 'parent_id'), 'null') in ('number', 'null')
            -- This condition is true of each number that the column can hold.
            and coalesce(new.parent_id between -9223372036854775808 and 9223372036854775807, true)
            and new.job ->> 'max_payload' is null
            and pg_column_size(new.payload) <= 512 and refusal_of_json_jobs.max_payload >= 512
        ) is true)
        into are_sound
        -- With `offset 0` the server computes each column once.
        from (select * from reveille.read_json_jobs(jobs, false) offset 0) as new;
    exception when data_exception then
        are_sound := false;
    end;
    if are_sound is not false then
        return null;
    end if;
    for given in
        select each.job, each.place from jsonb_array_elements(jobs) with ordinality as each (job, place)
    loop
        refusal := reveille.refusal_of_json_job(given.job, refusal_of_json_jobs.max_payload);
        if refusal is not null then
            return format('job %s: %s', given.place, refusal);
        end if;
    end loop;
    return null;
end
$_$;

COMMENT ON FUNCTION reveille.refusal_of_json_jobs(jobs jsonb, max_payload bigint) IS 'For reveille.enqueue_json: returns the place and the key of the first job of an array that cannot be stored, and why; null if all can be stored.';

CREATE FUNCTION reveille.refusal_of_linked_jobs(workflow bigint, jobs jsonb, max_payload bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
    refusal text;
begin
    select case
        when jsonb_typeof(given.job) <> 'object' then format('job %s: must be an object', given.place)
        when refusal_of_linked_jobs.workflow is not null
            and (jsonb_typeof(given.job -> 'name') = 'string' and length(given.job ->> 'name') between 1 and 128)
                is not true
        then format('job %s: key "name": must be a string of 1 to 128 characters', given.place)
        when given.job ->> 'unique_key' is not null or given.job ->> 'unique_mode' is not null
            or given.job ->> 'unique_until' is not null
        then format(
            'job %s: key "unique_key": a job that waits for others or belongs to a workflow cannot have one; the '
            'workflow can', coalesce(to_json(given.job ->> 'name')::text, given.place::text)
        )
        when coalesce(jsonb_typeof(given.job -> 'after'), 'array') <> 'array'
            or coalesce(jsonb_typeof(given.job -> 'before'), 'array') <> 'array'
        then format(
            'job %s: the keys "after" and "before": must be arrays of names',
            coalesce(to_json(given.job ->> 'name')::text, given.place::text)
        )
        when given.job ->> 'wait_for' not in ('all', 'first')
        then format('job %s: key "wait_for": must be "all" or "first"', to_json(given.job ->> 'name'))
    end
    into refusal
    from jsonb_array_elements(jobs) with ordinality as given (job, place)
    where jsonb_typeof(given.job) <> 'object'
        or refusal_of_linked_jobs.workflow is not null and (
            jsonb_typeof(given.job -> 'name') = 'string' and length(given.job ->> 'name') between 1 and 128
        ) is not true
        or given.job ->> 'unique_key' is not null or given.job ->> 'unique_mode' is not null
        or given.job ->> 'unique_until' is not null
        or coalesce(jsonb_typeof(given.job -> 'after'), 'array') <> 'array'
        or coalesce(jsonb_typeof(given.job -> 'before'), 'array') <> 'array'
        or coalesce(given.job ->> 'wait_for', 'all') not in ('all', 'first')
    order by given.place
    limit 1;
    if refusal is not null then
        return refusal;
    end if;
    refusal := reveille.refusal_of_json_jobs(reveille.plain_jobs(jobs), max_payload);
    if refusal is not null or refusal_of_linked_jobs.workflow is null then
        return refusal;
    end if;

    select format('the name %s occurs twice', to_json(named.name)) into refusal
    from (
        select given.job ->> 'name' as name, count(*) as times
        from jsonb_array_elements(jobs) as given (job)
        group by 1
    ) as named
    where named.times > 1 or (
        select members.job from reveille.workflow_jobs as members
        where members.workflow = refusal_of_linked_jobs.workflow and members.name = named.name
    ) is not null
    order by named.name
    limit 1;
    if refusal is not null then
        return refusal;
    end if;
    select case
        when edges.name is null
        then format('job %s: %s is neither a name nor an object with the key "name"', given.name,
            left(edges.edge::text, 60))
        when edges.id is not null or jsonb_typeof(edges.edge) = 'object'
            and edges.edge - array['name', 'label', 'fires_on', 'on_dead'] <> '{}'
        then format('job %s: %s has another key than "name", "label", "fires_on" and "on_dead"', given.name,
            left(edges.edge::text, 60))
        when edges.fires_on not in ('completed', 'dead', 'cancelled', 'any')
        then format('job %s: key "fires_on": must be "completed", "dead", "cancelled" or "any", not %s', given.name,
            to_json(left(edges.fires_on, 60)))
        when edges.on_dead not in ('hold', 'cancel')
        then format('job %s: key "on_dead": must be "hold" or "cancel", not %s', given.name,
            to_json(left(edges.on_dead, 60)))
        when edges.name = jobs -> (edges.place - 1)::int ->> 'name' then format('job %s waits for itself', given.name)
        when edges.times > 1 then format('job %s waits for %s twice', given.name, to_json(edges.name))
        else format('job %s: %s is not a job of the workflow', given.name, to_json(left(edges.name, 60)))
    end
    into refusal
    from (
        select *, count(*) over (partition by read.place, read.direction, read.name) as times
        from reveille.read_dependencies(jobs) as read
    ) as edges
    cross join lateral (select to_json(jobs -> (edges.place - 1)::int ->> 'name')::text as name) as given
    left join (
        select added.job ->> 'name' as name, true as is_new from jsonb_array_elements(jobs) as added (job)
    ) as named on named.name = edges.name
    where edges.name is null or edges.id is not null
        or jsonb_typeof(edges.edge) = 'object'
            and edges.edge - array['name', 'label', 'fires_on', 'on_dead'] <> '{}'
        or edges.fires_on not in ('completed', 'dead', 'cancelled', 'any')
        or edges.on_dead not in ('hold', 'cancel') or edges.times > 1
        or edges.name = jobs -> (edges.place - 1)::int ->> 'name'
        or named.is_new is null and (
            select members.job from reveille.workflow_jobs as members
            where members.workflow = refusal_of_linked_jobs.workflow and members.name = edges.name
        ) is null
    order by edges.place
    limit 1;
    return coalesce(refusal, reveille.cycle_of(jobs));
end
$$;

COMMENT ON FUNCTION reveille.refusal_of_linked_jobs(workflow bigint, jobs jsonb, max_payload bigint) IS 'Returns what is wrong with new jobs of a workflow, by the name of the job; null if nothing is. If workflow is null, the jobs belong to none. max_payload is as in reveille.refusal_of_json_jobs.';

CREATE FUNCTION reveille.replace_waiting(kind text, unique_key text, payload jsonb, tags text[], metadata jsonb, available_at timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    replaced record;
begin
    -- Only a waiting job is changed: a running job keeps the values with which it started.
    update reveille.jobs
    set payload = replace_waiting.payload,
        tags = coalesce(replace_waiting.tags, jobs.tags),
        metadata = coalesce(replace_waiting.metadata, jobs.metadata),
        available_at = coalesce(replace_waiting.available_at, jobs.available_at)
    where jobs.kind = replace_waiting.kind and jobs.unique_key = replace_waiting.unique_key and jobs.reserved_by is null
    returning jobs.id, jobs.queue into replaced;
    if found and replace_waiting.available_at is not null then
        perform reveille.ring(array[replaced.queue]);
    end if;
    return replaced.id;
end
$$;

COMMENT ON FUNCTION reveille.replace_waiting(kind text, unique_key text, payload jsonb, tags text[], metadata jsonb, available_at timestamp with time zone) IS 'For reveille.enqueue with unique_mode replace or debounce: changes the waiting job that has the unique key. Returns the job''s id; null if no waiting job has this unique key.';

CREATE FUNCTION reveille.resume(queue text DEFAULT NULL::text, kind text DEFAULT NULL::text, key text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    if coalesce(resume.kind, resume.key) is not null then
        delete from reveille.pauses
        where coalesce(key, '') = coalesce(resume.key, '') and coalesce(kind, '') = coalesce(resume.kind, '')
            and coalesce(queue, '') = coalesce(resume.queue, '');
        return;
    end if;
    if resume.queue is null then
        raise exception 'resume needs a queue, a kind or a key' using errcode = 'invalid_parameter_value';
    end if;
    update reveille.queues set paused_at = null where name = resume.queue;
    perform reveille.ring(array[resume.queue]);
end
$$;

COMMENT ON FUNCTION reveille.resume(queue text, kind text, key text) IS 'Ends the pause that reveille.pause began with the same arguments.';

CREATE FUNCTION reveille.resume_schedule(name text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    update reveille.schedules set paused_at = null where schedules.name = resume_schedule.name;
    return found;
end
$$;

COMMENT ON FUNCTION reveille.resume_schedule(name text) IS 'Resumes a schedule from its next tick after now; ticks that passed during the pause are skipped. Returns true if the schedule exists.';

CREATE FUNCTION reveille.retry(id bigint, forced boolean DEFAULT false) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    job reveille.jobs;
    dead reveille.dead_jobs;
begin
    if exists (select from reveille.blocked_jobs where blocked_jobs.id = retry.id) then
        return 'blocked';
    end if;
    select * into job from reveille.jobs where jobs.id = retry.id for update;
    if found and job.reserved_at is not null then
        return 'running';
    elsif found then
        update reveille.jobs set available_at = least(available_at, now()) where jobs.id = retry.id;
        perform reveille.ring(array[job.queue]);
        return 'due';
    end if;

    begin
        delete from reveille.dead_jobs where dead_jobs.id = retry.id returning * into dead;
        if found then
            if dead.linked then
                -- If a worker is just applying the job's death, this waits until the worker has committed.
                perform reveille.note_end(retry.id, 'revived');
                perform from reveille.dependencies as acted_on
                where acted_on.on_job = retry.id and acted_on.fires_on = 'dead' and acted_on.state = 'met';
                if found and not retry.forced then
                    raise exception using errcode = 'RVCOM';
                end if;
            end if;
            insert into reveille.jobs (
                id, queue, kind, payload, priority, attempts, max_attempts, created_at, unique_key, unique_until,
                key, timeout, tags, metadata, errors, progress, parent_id, schedule_id, linked
            )
            overriding system value
            values (
                dead.id, dead.queue, dead.kind, dead.payload, dead.priority, dead.attempts, dead.max_attempts,
                dead.created_at, dead.unique_key, dead.unique_until, dead.key, dead.timeout, dead.tags, dead.metadata,
                dead.errors, dead.progress, dead.parent_id, dead.schedule_id, dead.linked
            )
            on conflict do nothing;
            if not found then
                if exists (select from reveille.jobs where jobs.id = retry.id) then
                    raise exception 'job % cannot be revived: a live job has its id', retry.id
                        using errcode = 'unique_violation', hint = 'Try again once that job has ended.';
                end if;
                raise exception 'job % cannot be revived: a live job of its kind has its unique key', retry.id
                    using errcode = 'unique_violation', hint = 'Cancel that job or wait for its end, then try again.';
            end if;
            return 'revived';
        end if;
    exception when sqlstate 'RVCOM' then
        return 'compensated';
    end;

    return case
        when exists (select from reveille.finished_jobs where finished_jobs.id = retry.id) then 'finished'
        else 'unknown'
    end;
end
$$;

COMMENT ON FUNCTION reveille.retry(id bigint, forced boolean) IS 'Makes a job due now. Returns `due` (the job was waiting), `revived` (the job was dead, and its failures are set to zero), or the reason why nothing was changed: `running`, `blocked` (the job waits for others), `compensated` (the job is dead, and a job that waited for its death was started), `finished` or `unknown`. `forced` revives even a compensated job.';

CREATE FUNCTION reveille.retry_workflow(id bigint, forced boolean DEFAULT false) RETURNS TABLE(name text, job bigint, answer text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
begin
    -- A death that no worker has applied yet is known from reveille.dead_jobs.
    for name, job in
        select members.name, members.job
        from reveille.workflow_jobs as members
        where members.workflow = retry_workflow.id
            and exists (select from reveille.dead_jobs where dead_jobs.id = members.job)
        order by members.job
    loop
        begin
            answer := reveille.retry(job, forced);
        exception when unique_violation then
            answer := 'a live job has its id or its unique key';
        end;
        return next;
    end loop;
end
$$;

COMMENT ON FUNCTION reveille.retry_workflow(id bigint, forced boolean) IS 'Revives the dead jobs of a workflow. Returns one row per dead job: its name, its id, and `revived`, or why it was not revived, as in reveille.retry. The jobs that a dead job holds up then wait for it as before.';

CREATE FUNCTION reveille.ring(queues text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if pg_catalog.current_setting('reveille.bell', true) operator(pg_catalog.=) 'off' then
        return;
    end if;
    perform case
        when (select pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.9)
        then pg_catalog.pg_notify('reveille.bell', rung.queue)
    end
    from (select distinct q.queue from pg_catalog.unnest(queues) as q (queue)) as rung
    where (
            exists (
                select from reveille.sleepers
                where sleepers.queue operator(pg_catalog.=) rung.queue and not sleepers.silent
            )
            -- At an isolation level other than read committed, the bell rings even if no sleeping worker is visible,
            -- because the snapshot may be older than the rows of the workers that sleep now. A bell that is switched
            -- off stays silent.
            or (
                pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.<>) 'read committed'
                and not exists (
                    select from reveille.queues as silent
                    where silent.name operator(pg_catalog.=) rung.queue and not silent.bell
                )
            )
        )
        and (pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'UTF8' or reveille.can_be_sent(rung.queue));
end
$$;

COMMENT ON FUNCTION reveille.ring(queues text[]) IS 'Rings the bell (NOTIFY) at the commit, for each of the given queues on which a worker sleeps. Call this function after a statement that lets waiting jobs start; after an insert, a trigger rings the bell. `set local reveille.bell = ''off''` silences the bell.';

CREATE FUNCTION reveille.ring_after_insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$
begin
    -- While a worker sleeps, every enqueue pays for this query. To stay cheap, the query does not remove duplicate
    -- queues: it sends a notification for each job, and the server merges the equal notifications of a transaction.
    if pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.=) 'read committed' then
        perform case
            when (select pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.9)
            then pg_catalog.pg_notify('reveille.bell', inserted.queue)
        end
        from inserted
        where exists (
                select from reveille.sleepers
                where sleepers.queue operator(pg_catalog.=) inserted.queue and not sleepers.silent
            )
            and (pg_catalog.current_setting('reveille.bell', true) operator(pg_catalog.=) 'off') is not true
            and (
                pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'UTF8' or reveille.can_be_sent(inserted.queue)
            );
    else
        -- At an isolation level other than read committed, the bell rings without a query for sleeping workers, because
        -- the snapshot may be older than the rows of the workers that sleep now. A bell that is switched off stays
        -- silent.
        perform case
            when (select pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.9)
            then pg_catalog.pg_notify('reveille.bell', inserted.queue)
        end
        from inserted
        where (pg_catalog.current_setting('reveille.bell', true) operator(pg_catalog.=) 'off') is not true
            and not exists (
                select from reveille.queues as silent
                where silent.name operator(pg_catalog.=) inserted.queue and not silent.bell
            )
            and (
                pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'UTF8' or reveille.can_be_sent(inserted.queue)
            );
    end if;
    return null;
end
$$;

COMMENT ON FUNCTION reveille.ring_after_insert() IS 'Rings the bell once for each queue of the new jobs, due or delayed, on which a worker sleeps. `set local reveille.bell = ''off''` silences the bell.';

CREATE FUNCTION reveille.ring_after_update() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform reveille.ring(array[new.queue]);
    return null;
end
$$;

COMMENT ON FUNCTION reveille.ring_after_update() IS 'Rings the bell for a waiting job that was made due sooner or moved to another queue.';

CREATE FUNCTION reveille.run_child(parent bigint, worker bigint, attempt integer, reserved_at timestamp with time zone, step text, job jsonb) RETURNS TABLE(kind text, value jsonb, outcome text, seconds double precision, failures integer)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    child bigint;
    so_far int;
begin
    select jobs.failures into so_far
    from reveille.jobs
    where jobs.id = run_child.parent and jobs.reserved_by is not distinct from run_child.worker
        and jobs.attempts = run_child.attempt and jobs.reserved_at is not distinct from run_child.reserved_at
    for no key update;
    if not found then
        return;
    end if;
    if not exists (select from reveille.steps where steps.job = run_child.parent and steps.name = run_child.step) then
        -- The program has checked the size of the payload.
        perform set_config('reveille.max_payload', '8388608', true);
        select enqueued.id into child from reveille.enqueue_json(run_child.job) as enqueued;
        update reveille.jobs set linked = true where jobs.id = child;
        -- The wait comes before the child can end, so its end is always noted as an event.
        insert into reveille.waits (job, event, until, seen)
        values (run_child.parent, 'reveille:end:' || child, 'infinity', true);
        insert into reveille.steps (job, name, value, outcome, attempt, reserved_at)
        values (run_child.parent, run_child.step, to_jsonb(child), 'done', run_child.attempt, run_child.reserved_at);
        update reveille.jobs set linked = true, failures = 0 where jobs.id = run_child.parent;
        so_far := 0;
    end if;
    return query
    select steps.kind, steps.value, steps.outcome, 0::double precision, so_far
    from reveille.steps
    where steps.job = run_child.parent and steps.name = run_child.step;
end
$$;

COMMENT ON FUNCTION reveille.run_child(parent bigint, worker bigint, attempt integer, reserved_at timestamp with time zone, step text, job jsonb) IS 'Enqueues a job, as reveille.enqueue_json does, and records its id as a step of the job that waits for it, if the reservation of that job stands. A step that is recorded already stays as it is, and no job is enqueued. Returns the step; no row if the reservation does not stand. For workers.';

CREATE FUNCTION reveille.says_nothing_of_a_row(code text) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $$
    select pg_catalog.left(code, 2) operator(pg_catalog.=) any (array[
        '08', '0A', '25', '26', '28', '34', '3D', '3F', '40', '42', '53', '55', '57'
    ])
$$;

COMMENT ON FUNCTION reveille.says_nothing_of_a_row(code text) IS 'True if the error with this SQLSTATE concerns the connection, rights, the schema, resources or concurrent sessions, so that trying again may help.';

CREATE FUNCTION reveille.schedule(name text, kind text, cron text DEFAULT NULL::text, every interval DEFAULT NULL::interval, time_zone text DEFAULT 'UTC'::text, payload jsonb DEFAULT '{}'::jsonb, queue text DEFAULT 'default'::text, priority bigint DEFAULT 2, max_attempts bigint DEFAULT NULL::bigint, timeout interval DEFAULT NULL::interval, key text DEFAULT NULL::text, tags text[] DEFAULT NULL::text[], metadata jsonb DEFAULT NULL::jsonb, catch_up text DEFAULT 'one'::text, declared_by bigint DEFAULT NULL::bigint) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION reveille.schedule(name text, kind text, cron text, every interval, time_zone text, payload jsonb, queue text, priority bigint, max_attempts bigint, timeout interval, key text, tags text[], metadata jsonb, catch_up text, declared_by bigint) IS 'Adds a schedule, or changes the schedule of that name: `select reveille.schedule(''nightly-report'', kind => ''report'', cron => ''0 3 * * *'', time_zone => ''Europe/Berlin'')`. The next tick stays unless the timing changes; a paused schedule stays paused. Returns the schedule''s id. declared_by is for workers, which declare the schedules of their code.';

CREATE FUNCTION reveille.seal_workflow(workflow bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
declare
    given_workflow constant bigint := workflow;
begin
    perform reveille.check_may_enqueue();
    update reveille.workflows set sealed = true where workflows.id = given_workflow and not sealed;
    if not found then
        if not exists (select from reveille.workflows where workflows.id = given_workflow) then
            raise exception 'workflow % does not exist', given_workflow using errcode = 'no_data_found';
        end if;
        return false;
    end if;
    if exists (select from reveille.workflows where workflows.id = given_workflow and workflows.jobs = 0) then
        raise exception 'a workflow needs at least one job' using errcode = 'invalid_parameter_value';
    end if;
    perform from reveille.blocked_jobs
    where blocked_jobs.workflow = given_workflow and (needs <= 0 or chances < needs)
    order by blocked_jobs.id
    for update;
    perform reveille.settle_blocked(array(
        select blocked_jobs.id from reveille.blocked_jobs
        where blocked_jobs.workflow = given_workflow and (needs <= 0 or chances < needs)
    ));
    perform reveille.update_workflows(array[given_workflow]);
    return true;
end
$$;

COMMENT ON FUNCTION reveille.seal_workflow(workflow bigint) IS 'Ends the filling of a workflow that reveille.open_workflow has begun: jobs that wait for others can start from the commit on. Further jobs can still be added until the workflow ends. Returns false if it was sealed.';

CREATE FUNCTION reveille.set_slots(queue text, slots integer, worker bigint DEFAULT NULL::bigint) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    changed int;
begin
    if set_slots.slots is null or set_slots.slots not between 0 and 10000 then
        raise exception 'a queue cannot have % slots in a worker; set 0 to 10000', set_slots.slots
            using errcode = 'invalid_parameter_value';
    end if;
    -- Locks the rows in the order of their ids, so that two calls cannot wait for each other in a circle.
    perform from reveille.workers
    where queue = any (queues) and cardinality(queue_slots) = cardinality(queues)
        and (set_slots.worker is null or id = set_slots.worker)
    order by id
    for no key update;
    update reveille.workers
    set queue_slots[array_position(queues, set_slots.queue)] = set_slots.slots,
        slots = workers.slots + set_slots.slots - queue_slots[array_position(queues, set_slots.queue)]
    where set_slots.queue = any (queues) and cardinality(queue_slots) = cardinality(queues)
        and (set_slots.worker is null or id = set_slots.worker);
    get diagnostics changed = row_count;
    return changed;
end
$$;

COMMENT ON FUNCTION reveille.set_slots(queue text, slots integer, worker bigint) IS 'Sets the number of slots of a queue in one worker, or in all live workers of the queue if worker is null: 0 to 10,000. The workers learn of it at their next heartbeats. A worker that is started again has its own number. Returns the number of workers.';

CREATE FUNCTION reveille.settle_blocked(ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

COMMENT ON FUNCTION reveille.settle_blocked(ids bigint[]) IS 'Starts or skips each of these blocked jobs whose dependencies are decided. The caller has locked their rows.';

CREATE FUNCTION reveille.somebody_may_sleep() RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    AS $$
begin
    return (
        pg_catalog.pg_sequence_last_value('reveille.somebody_sleeps'::pg_catalog.regclass)
            operator(pg_catalog.=) 0::pg_catalog.int8
    ) is not true;
end
$$;

COMMENT ON FUNCTION reveille.somebody_may_sleep() IS 'False if no worker sleeps, so that an insert need not search for workers to ring for. Reads the present state, whatever the statement''s snapshot shows.';

CREATE FUNCTION reveille.start_blocked(ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

COMMENT ON FUNCTION reveille.start_blocked(ids bigint[]) IS 'Moves blocked jobs to reveille.jobs. The caller has locked the rows of the jobs, and those of their workflows.';

CREATE FUNCTION reveille.stop_worker(id bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    update reveille.workers set stop_requested_at = coalesce(stop_requested_at, clock_timestamp())
    where workers.id = stop_worker.id;
    if not found then
        return false;
    end if;
    -- If no notification comes, the worker's next heartbeat finds the request.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.stop', stop_worker.id::text);
    end if;
    return true;
end
$$;

COMMENT ON FUNCTION reveille.stop_worker(id bigint) IS 'Asks a worker to shut down: the worker claims no more jobs and finishes its running jobs. Returns true if the worker exists.';

CREATE FUNCTION reveille.store_linked_jobs(workflow bigint, jobs jsonb, schedule_id bigint DEFAULT NULL::bigint) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET jit TO 'off'
    SET enable_seqscan TO 'off'
    AS $$
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

COMMENT ON FUNCTION reveille.store_linked_jobs(workflow bigint, jobs jsonb, schedule_id bigint) IS 'Stores checked jobs with their dependencies, in a workflow or (null) in none. Returns their ids, in their order.';

CREATE FUNCTION reveille.sum_of_histograms(one bigint[], other bigint[]) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select array_agg(coalesce(a, 0) + coalesce(b, 0) order by bucket)
    from unnest(one, other) with ordinality as counts (a, b, bucket)
$$;

COMMENT ON FUNCTION reveille.sum_of_histograms(one bigint[], other bigint[]) IS 'Adds two histograms bucket by bucket.';

CREATE FUNCTION reveille.tell_head(queue text, priority smallint, available_at timestamp with time zone, id bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    slot constant text := 'reveille.head_' || (hashtextextended(queue, 0) & 7);
    since_1970 constant bigint := (extract(epoch from available_at) * 1000000)::bigint;
begin
    if since_1970 > 0 and id > 0 then
        perform setval((slot || '_available_at')::regclass, since_1970), setval((slot || '_id')::regclass, id),
            setval((slot || '_seal')::regclass, reveille.head_seal(queue, priority, since_1970, id));
    end if;
end
$$;

COMMENT ON FUNCTION reveille.tell_head(queue text, priority smallint, available_at timestamp with time zone, id bigint) IS 'Shares with the other workers of a queue the place that this worker''s claims have reached.';

CREATE FUNCTION reveille.tell_of_ends() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- If no notification comes, the workers' next heartbeats find the ends.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.linked', '');
    end if;
end
$$;

COMMENT ON FUNCTION reveille.tell_of_ends() IS 'Notifies the workers that ends of linked jobs are to be applied.';

CREATE FUNCTION reveille.tell_of_schedules() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- If the notification buffer is nearly full, the trigger sends nothing. Workers then find the schedule within 30 s,
    -- since they check the schedules without a notification too.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.schedules', '');
    end if;
    return null;
end
$$;

COMMENT ON FUNCTION reveille.tell_of_schedules() IS 'Wakes the workers that fire schedules (NOTIFY) when a schedule''s tick may be due sooner than they expect.';

CREATE FUNCTION reveille.told_head(queue text, OUT priority smallint, OUT available_at timestamp with time zone, OUT id bigint) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    slot constant text := 'reveille.head_' || (hashtextextended(queue, 0) & 7);
    since_1970 constant bigint := pg_sequence_last_value((slot || '_available_at')::regclass);
    seal constant bigint := pg_sequence_last_value((slot || '_seal')::regclass);
    place constant timestamptz := timestamptz 'epoch' + since_1970 * interval '1 microsecond';
begin
    id := pg_sequence_last_value((slot || '_id')::regclass);
    -- A place in the future is ignored: it was shared while the server's clock was fast.
    if place > now() then
        return;
    end if;
    for level in 0..3 loop
        if seal = reveille.head_seal(queue, level, since_1970, id) then
            priority := level;
        end if;
    end loop;
    available_at := place;
    -- If the shared place is less than a second old, claims start 50 ms before it. Transactions commit slightly out of
    -- the order in which they began, so jobs before it may be committed only after a claim has passed their places.
    if place > now() - interval '1 second' then
        available_at := place - interval '50 milliseconds';
        id := 0;
    end if;
end
$$;

COMMENT ON FUNCTION reveille.told_head(queue text, OUT priority smallint, OUT available_at timestamp with time zone, OUT id bigint) IS 'Returns the place that the claims of a queue have reached, as its workers last shared it; priority is null if the place is not known.';

CREATE FUNCTION reveille.trigger_schedule(name text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION reveille.trigger_schedule(name text) IS 'Enqueues one job of a schedule now, even if the schedule is paused; its next tick stays. Returns the job''s id; null if no schedule has this name.';

CREATE FUNCTION reveille.truncate_finished_jobs() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '100ms'
    AS $$
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
            null; -- Another session has locked the partition, so a later call truncates it.
        end;
    end loop;
    return 0;
end
$$;

COMMENT ON FUNCTION reveille.truncate_finished_jobs() IS 'Empties one daily partition that is past the longest retention. Returns the number of emptied partitions: 1 or 0. Workers call it.';

CREATE FUNCTION reveille.unpark(most bigint) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
    released record;
begin
    -- The statement finds each queue and pause that has parked jobs by one probe of the index jobs_parked.
    with recursive parked (queue, paused_by) as (
        (
            select jobs.queue, jobs.paused_by from reveille.jobs
            where jobs.paused_by is not null
            order by jobs.queue, jobs.paused_by, jobs.id
            limit 1
        )
        union all
        select next.queue, next.paused_by
        from parked
        cross join lateral (
            select jobs.queue, jobs.paused_by from reveille.jobs
            where jobs.paused_by is not null and (jobs.queue, jobs.paused_by) > (parked.queue, parked.paused_by)
            order by jobs.queue, jobs.paused_by, jobs.id
            limit 1
        ) as next
    ), chosen as materialized (
        select resumed.place
        from parked
        cross join lateral (
            select jobs.ctid as place from reveille.jobs
            where jobs.queue = parked.queue and jobs.paused_by = parked.paused_by
            order by jobs.id
            limit most
            for update skip locked
        ) as resumed
        where not exists (select from reveille.pauses where pauses.id = parked.paused_by)
        limit most
    ), changed as (
        update reveille.jobs set paused_by = null where ctid = any (array(select place from chosen)) returning queue
    )
    select count(*) as jobs, array_agg(distinct queue) as queues into released from changed;
    if released.jobs > 0 then
        perform reveille.ring(released.queues);
    end if;
    return released.jobs;
end
$$;

COMMENT ON FUNCTION reveille.unpark(most bigint) IS 'Unparks up to `most` jobs whose pause has ended, and rings the bell for their queues. Returns the number of unparked jobs. Workers call this function.';

CREATE FUNCTION reveille.unpark_changed_job() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    update reveille.jobs set paused_by = null where id = new.id;
    perform reveille.ring(array[new.queue]);
    return null;
end
$$;

COMMENT ON FUNCTION reveille.unpark_changed_job() IS 'Unparks a job that gets another queue, kind or key. The next claim parks the job again if a pause covers it.';

CREATE FUNCTION reveille.unschedule(name text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    delete from reveille.schedules where schedules.name = unschedule.name;
    return found;
end
$$;

COMMENT ON FUNCTION reveille.unschedule(name text) IS 'Removes a schedule; the jobs that it has enqueued stay. Returns true if the schedule existed. A schedule that a worker declares in its code returns when that worker starts again.';

CREATE FUNCTION reveille.update_workflows(ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
begin
    update reveille.workflows
    set state = now_is.state,
        finished_at = case when now_is.has_ended then coalesce(workflows.finished_at, clock_timestamp()) end,
        holds_key = workflows.holds_key and not now_is.has_ended,
        result = case when now_is.has_ended then (
            select case when count(*) = 1 then (array_agg(sinks.result))[1] end
            from (
                select members.result
                from reveille.workflow_jobs as members
                where members.workflow = workflows.id and members.outcome = 'completed'
                    and not exists (
                        select from reveille.dependencies
                        join reveille.workflow_jobs as waiters on waiters.job = dependencies.waiter
                        where dependencies.on_job = members.job and waiters.workflow = workflows.id
                    )
                limit 2
            ) as sinks
        ) end
    from (
        select
            before.id,
            case
                when counts.pending = 0 and (before.sealed or before.state in ('cancelling', 'cancelled'))
                then case
                    when before.state in ('cancelling', 'cancelled') then 'cancelled'
                    when before.dead > 0 then 'failed'
                    when before.cancelled > 0 then 'cancelled'
                    else 'completed'
                end
                when before.state = 'cancelling' then 'cancelling'
                when before.sealed and before.dead > 0 and counts.pending = before.blocked
                    -- The count of blocked jobs has the jobs, too, that were skipped and are not yet applied.
                    and not exists (
                        select from reveille.linked_ends as ends
                        where ends.workflow = before.id and ends.was_blocked
                    )
                then 'stalled'
                else 'running'
            end as state,
            counts.pending = 0 and (before.sealed or before.state in ('cancelling', 'cancelled')) as has_ended
        from reveille.workflows as before
        cross join lateral (
            select before.jobs - before.completed - before.dead - before.cancelled - before.skipped
        ) as counts (pending)
        where before.id = any (ids)
    ) as now_is
    where workflows.id = now_is.id
        and (workflows.state <> now_is.state or (workflows.finished_at is not null) <> now_is.has_ended);
end
$$;

COMMENT ON FUNCTION reveille.update_workflows(ids bigint[]) IS 'Brings the states of workflows up to date with their counts. The caller has locked their rows.';

CREATE FUNCTION reveille.wait_in_a_circle(ids bigint[]) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'on'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
    -- With `offset 0`, the dependencies of each job are found in an index, whatever the planner expects.
    with recursive needed (waiter, job) as (
        select found.waiter, added.id
        from unnest(ids) as added (id)
        cross join lateral (
            select dependencies.waiter from reveille.dependencies where dependencies.on_job = added.id offset 0
        ) as found
        where (select blocked_jobs.id from reveille.blocked_jobs where blocked_jobs.id = found.waiter) is not null
        union
        select needed.waiter, found.on_job
        from needed
        cross join lateral (
            select dependencies.on_job from reveille.dependencies
            where dependencies.waiter = needed.job and dependencies.state in ('open', 'held')
            offset 0
        ) as found
        -- A job that has started waits for nothing any more. The new jobs are not in reveille.workflow_jobs yet.
        where needed.job <> needed.waiter and (
            (select members.job from reveille.workflow_jobs as members where members.job = needed.job) is null
            or (select blocked_jobs.id from reveille.blocked_jobs where blocked_jobs.id = needed.job) is not null
        )
    )
    select exists (select from needed where waiter = job)
$$;

COMMENT ON FUNCTION reveille.wait_in_a_circle(ids bigint[]) IS 'True if a blocked job that is to wait for one of these new jobs would wait for itself.';

CREATE TABLE reveille.actions (
    id bigint NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    actor text NOT NULL,
    source text NOT NULL,
    action text NOT NULL,
    target jsonb DEFAULT '{}'::jsonb NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL,
    matching bigint,
    done bigint,
    requested bigint,
    passed_over bigint,
    left_over bigint,
    refused bigint,
    highest_id bigint,
    last_id bigint,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    stop_requested_at timestamp with time zone,
    ended_at timestamp with time zone,
    outcome text,
    error text,
    request text,
    CONSTRAINT actor_has_1_to_128_characters CHECK (((length(actor) >= 1) AND (length(actor) <= 128))),
    CONSTRAINT ended_actions_have_an_outcome CHECK (((ended_at IS NULL) = (outcome IS NULL))),
    CONSTRAINT outcome_is_known CHECK ((outcome = ANY (ARRAY['done'::text, 'stopped'::text, 'failed'::text]))),
    CONSTRAINT source_has_1_to_128_characters CHECK (((length(source) >= 1) AND (length(source) <= 128)))
);

COMMENT ON TABLE reveille.actions IS 'What operators did by the command, the dashboard or another program that acts as someone: one row for each single change, and one for each run over many jobs. Upkeep deletes the rows after 90 days.';

COMMENT ON COLUMN reveille.actions.id IS 'The id. Later actions have higher ids.';

COMMENT ON COLUMN reveille.actions.started_at IS 'The time of the change, or the time at which the run began.';

COMMENT ON COLUMN reveille.actions.actor IS 'The person or program that acted, as the source names it.';

COMMENT ON COLUMN reveille.actions.source IS 'The way by which the actor acted, such as `command` or `dashboard`.';

COMMENT ON COLUMN reveille.actions.action IS 'The action: `retry`, `cancel`, `revive`, `purge`, `run_again`, `edit`, `enqueue`, `pause`, `resume`, `set_queue`, `remove_queue`, `stop_worker`, `set_slots`, `schedule`, `unschedule`, `pause_schedule`, `resume_schedule`, `trigger_schedule` or `prune`.';

COMMENT ON COLUMN reveille.actions.target IS 'The thing that was acted on, such as `{"job": 7}`, `{"queue": "mail"}` or `{"filter": {"kind": "charge"}}`. In place of a payload there is its hash.';

COMMENT ON COLUMN reveille.actions.detail IS 'The answer, and the changed settings with their old and new values. In place of a payload there is an object with `sha256`, the hash of its text as Postgres writes it, and `bytes`, the length of this text.';

COMMENT ON COLUMN reveille.actions.matching IS 'Of a run: the number of jobs that passed the filter when they were counted; null: they were not counted.';

COMMENT ON COLUMN reveille.actions.done IS 'Of a run: the number of changed jobs, written in the transactions that change them. Null: a single change.';

COMMENT ON COLUMN reveille.actions.requested IS 'Of a run: the number of running jobs among these, whose handlers were asked to stop.';

COMMENT ON COLUMN reveille.actions.passed_over IS 'Of a run: the number of jobs that were not touched, because they changed meanwhile or another session has locked them.';

COMMENT ON COLUMN reveille.actions.left_over IS 'Of a run: the number of jobs that stay dead because live jobs hold their unique keys, or that an edit leaves because their payloads are encrypted, and the new one is not.';

COMMENT ON COLUMN reveille.actions.refused IS 'Of a run: the number of jobs that the server refused to change.';

COMMENT ON COLUMN reveille.actions.highest_id IS 'Of a run: the highest id at its start. Jobs with higher ids came later, and are not touched.';

COMMENT ON COLUMN reveille.actions.last_id IS 'Of a run: the highest id that it has reached. A run that has lost an answer of the server goes on behind it.';

COMMENT ON COLUMN reveille.actions.seen_at IS 'The last sign of life of a run. A run without a sign for 30 seconds is interrupted: its process has ended, or cannot reach the database.';

COMMENT ON COLUMN reveille.actions.stop_requested_at IS 'The time at which somebody asked the run to stop. The run stops before its next transaction.';

COMMENT ON COLUMN reveille.actions.ended_at IS 'The end; null while a run goes on, and after an interruption.';

COMMENT ON COLUMN reveille.actions.outcome IS '`done`, `stopped` or `failed`; null: not ended.';

COMMENT ON COLUMN reveille.actions.error IS 'The error that ended a run.';

COMMENT ON COLUMN reveille.actions.request IS 'The name of the request that asked for the change, such as a form that was sent. There is one action of each request. Null: the request has no name.';

CREATE VIEW reveille.action_status AS
 SELECT actions.id,
    actions.started_at,
    actions.actor,
    actions.source,
    actions.action,
    actions.target,
    actions.detail,
        CASE
            WHEN (actions.outcome IS NOT NULL) THEN actions.outcome
            WHEN (actions.seen_at > (now() - '00:00:30'::interval)) THEN 'running'::text
            ELSE 'interrupted'::text
        END AS state,
    actions.matching,
    actions.done,
    actions.requested,
    actions.passed_over,
    actions.left_over,
    actions.refused,
    actions.highest_id,
    actions.seen_at,
    actions.stop_requested_at,
    actions.ended_at,
    actions.error
   FROM reveille.actions;

COMMENT ON VIEW reveille.action_status IS 'What operators did in the last 90 days: one row for each single change and for each run over many jobs. Give it an `order by id desc` and a `limit`.';

COMMENT ON COLUMN reveille.action_status.id IS 'The id. Later actions have higher ids.';

COMMENT ON COLUMN reveille.action_status.started_at IS 'The time of the change, or the time at which the run began.';

COMMENT ON COLUMN reveille.action_status.actor IS 'The person or program that acted, as the source names it.';

COMMENT ON COLUMN reveille.action_status.source IS 'The way by which the actor acted, such as `command` or `dashboard`.';

COMMENT ON COLUMN reveille.action_status.action IS 'The action: `retry`, `cancel`, `revive`, `purge`, `run_again`, `edit`, `enqueue`, `pause`, `resume`, `set_queue`, `remove_queue`, `stop_worker`, `set_slots`, `schedule`, `unschedule`, `pause_schedule`, `resume_schedule`, `trigger_schedule`, `cancel_workflow`, `retry_workflow` or `prune`.';

COMMENT ON COLUMN reveille.action_status.target IS 'The thing that was acted on, such as `{"job": 7}`, `{"queue": "mail"}` or `{"filter": {"kind": "charge"}}`. In place of a payload there is its hash.';

COMMENT ON COLUMN reveille.action_status.detail IS 'The answer, and the changed settings with their old and new values. In place of a payload there is an object with `sha256`, the hash of its text as Postgres writes it, and `bytes`, the length of this text.';

COMMENT ON COLUMN reveille.action_status.state IS '`done`, `stopped` or `failed`; `running`: a run goes on; `interrupted`: a run has not ended, and has given no sign of life for 30 seconds.';

COMMENT ON COLUMN reveille.action_status.matching IS 'Of a run: the number of jobs that passed the filter when they were counted; null: they were not counted.';

COMMENT ON COLUMN reveille.action_status.done IS 'Of a run: the number of changed jobs, exact even after a crash. Null: a single change.';

COMMENT ON COLUMN reveille.action_status.requested IS 'Of a run: the number of running jobs among these, whose handlers were asked to stop.';

COMMENT ON COLUMN reveille.action_status.passed_over IS 'Of a run: the number of jobs that were not touched, because they changed meanwhile or another session has locked them.';

COMMENT ON COLUMN reveille.action_status.left_over IS 'Of a run: the number of jobs that stay dead because live jobs hold their unique keys, or that an edit leaves because their payloads are encrypted, and the new one is not.';

COMMENT ON COLUMN reveille.action_status.refused IS 'Of a run: the number of jobs that the server refused to change.';

COMMENT ON COLUMN reveille.action_status.highest_id IS 'Of a run: the highest id at its start. Jobs with higher ids came later, and are not touched.';

COMMENT ON COLUMN reveille.action_status.seen_at IS 'The last sign of life of a run.';

COMMENT ON COLUMN reveille.action_status.stop_requested_at IS 'The time at which somebody asked the run to stop.';

COMMENT ON COLUMN reveille.action_status.ended_at IS 'The end; null while a run goes on, and after an interruption.';

COMMENT ON COLUMN reveille.action_status.error IS 'The error that ended a run.';

ALTER TABLE reveille.actions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reveille.actions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reveille.blocked_jobs (
    id bigint NOT NULL,
    queue text NOT NULL,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    priority smallint NOT NULL,
    max_attempts integer NOT NULL,
    needs integer NOT NULL,
    chances integer NOT NULL,
    needs_one boolean DEFAULT false NOT NULL,
    workflow bigint,
    cleanup boolean DEFAULT false NOT NULL,
    available_at timestamp with time zone,
    delay interval,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    key text,
    timeout interval,
    tags text[],
    metadata jsonb,
    parent_id bigint,
    schedule_id bigint,
    awaited boolean DEFAULT false NOT NULL
)
WITH (fillfactor='80', autovacuum_vacuum_scale_factor='0.05');
ALTER TABLE ONLY reveille.blocked_jobs ALTER COLUMN workflow SET (n_distinct=-0.1);

COMMENT ON TABLE reveille.blocked_jobs IS 'Blocked jobs: jobs that have never started, since they wait for the ends of other jobs. A job keeps its id when it moves to reveille.jobs.';

COMMENT ON COLUMN reveille.blocked_jobs.id IS 'The id.';

COMMENT ON COLUMN reveille.blocked_jobs.queue IS 'The queue.';

COMMENT ON COLUMN reveille.blocked_jobs.kind IS 'The kind.';

COMMENT ON COLUMN reveille.blocked_jobs.payload IS 'The handler''s input.';

COMMENT ON COLUMN reveille.blocked_jobs.priority IS '0 urgent, 1 high, 2 normal, 3 low.';

COMMENT ON COLUMN reveille.blocked_jobs.max_attempts IS 'The number of failures at which the job becomes a dead job.';

COMMENT ON COLUMN reveille.blocked_jobs.needs IS 'The number of dependencies that must still be met. At 0 the job moves to reveille.jobs, if its workflow is sealed.';

COMMENT ON COLUMN reveille.blocked_jobs.chances IS 'The number of dependencies that can still be met. The job is skipped once this number is below `needs`.';

COMMENT ON COLUMN reveille.blocked_jobs.needs_one IS 'True if one met dependency is enough.';

COMMENT ON COLUMN reveille.blocked_jobs.workflow IS 'The workflow; null: the job belongs to none.';

COMMENT ON COLUMN reveille.blocked_jobs.cleanup IS 'As in reveille.workflow_jobs.';

COMMENT ON COLUMN reveille.blocked_jobs.available_at IS 'The earliest due time; null: the time of the move.';

COMMENT ON COLUMN reveille.blocked_jobs.delay IS 'The time from the move to the due time; null: none.';

COMMENT ON COLUMN reveille.blocked_jobs.created_at IS 'The start of the transaction that enqueued the job.';

COMMENT ON COLUMN reveille.blocked_jobs.key IS 'The key: what the job belongs to, such as a tenant.';

COMMENT ON COLUMN reveille.blocked_jobs.timeout IS 'The longest run time of one attempt; null: the worker''s setting.';

COMMENT ON COLUMN reveille.blocked_jobs.tags IS 'Free labels.';

COMMENT ON COLUMN reveille.blocked_jobs.metadata IS 'Free data about the job.';

COMMENT ON COLUMN reveille.blocked_jobs.parent_id IS 'The id of the job whose handler enqueued this job.';

COMMENT ON COLUMN reveille.blocked_jobs.schedule_id IS 'The schedule that enqueued the job.';

COMMENT ON COLUMN reveille.blocked_jobs.awaited IS 'True if a program awaits the job.';

CREATE TABLE reveille.dependencies (
    waiter bigint NOT NULL,
    on_job bigint NOT NULL,
    label text NOT NULL,
    fires_on text NOT NULL,
    on_dead text DEFAULT 'hold'::text NOT NULL,
    state text DEFAULT 'open'::text NOT NULL,
    CONSTRAINT fires_on_is_known CHECK ((fires_on = ANY (ARRAY['completed'::text, 'dead'::text, 'cancelled'::text, 'any'::text]))),
    CONSTRAINT on_dead_is_known CHECK ((on_dead = ANY (ARRAY['hold'::text, 'cancel'::text]))),
    CONSTRAINT state_is_known CHECK ((state = ANY (ARRAY['open'::text, 'met'::text, 'held'::text, 'skipped'::text])))
)
WITH (autovacuum_vacuum_scale_factor='0.05', fillfactor='50');
ALTER TABLE ONLY reveille.dependencies ALTER COLUMN waiter SET (n_distinct=-0.1);
ALTER TABLE ONLY reveille.dependencies ALTER COLUMN on_job SET (n_distinct=-0.1);

COMMENT ON TABLE reveille.dependencies IS 'Dependencies: which job waits for which, and for which outcome. Those of a workflow are kept as long as its row, all others until the waiting job has completed or was cancelled.';

COMMENT ON COLUMN reveille.dependencies.waiter IS 'The job that waits.';

COMMENT ON COLUMN reveille.dependencies.on_job IS 'The prerequisite: the job that is waited for.';

COMMENT ON COLUMN reveille.dependencies.label IS 'The name under which the waiting job reads the result of the other.';

COMMENT ON COLUMN reveille.dependencies.fires_on IS 'The outcome that meets the dependency: `completed`, `dead`, `cancelled` or `any`. Skipped jobs count as cancelled.';

COMMENT ON COLUMN reveille.dependencies.on_dead IS 'What a dead prerequisite does to a dependency on `completed`: `hold`: it waits until that job is revived or purged; `cancel`: it is skipped.';

COMMENT ON COLUMN reveille.dependencies.state IS '`open`: the prerequisite has not ended; `met`; `held`: the prerequisite is dead; `skipped`: it can no longer be met.';

CREATE TABLE reveille.workflow_jobs (
    job bigint NOT NULL,
    workflow bigint NOT NULL,
    name text NOT NULL,
    cleanup boolean DEFAULT false NOT NULL,
    outcome text,
    result jsonb,
    ended_at timestamp with time zone,
    kind text,
    CONSTRAINT outcome_is_known CHECK ((outcome = ANY (ARRAY['completed'::text, 'dead'::text, 'cancelled'::text, 'skipped'::text])))
)
WITH (autovacuum_vacuum_scale_factor='0.05', fillfactor='50');
ALTER TABLE ONLY reveille.workflow_jobs ALTER COLUMN workflow SET (n_distinct=-0.1);

COMMENT ON TABLE reveille.workflow_jobs IS 'The jobs of workflows, one row each from the enqueue to the removal of the workflow. Their results are kept here, whatever the retention of their queues.';

COMMENT ON COLUMN reveille.workflow_jobs.job IS 'The job.';

COMMENT ON COLUMN reveille.workflow_jobs.workflow IS 'The workflow.';

COMMENT ON COLUMN reveille.workflow_jobs.name IS 'The name of the job within the workflow.';

COMMENT ON COLUMN reveille.workflow_jobs.cleanup IS 'True if the job waits for others, and neither for completed nor for dead ones alone: a cancel of the workflow leaves it.';

COMMENT ON COLUMN reveille.workflow_jobs.outcome IS '`completed`, `dead`, `cancelled` or `skipped`; null: the job has not ended.';

COMMENT ON COLUMN reveille.workflow_jobs.result IS 'The result that the handler returned, at most 1 MiB.';

COMMENT ON COLUMN reveille.workflow_jobs.ended_at IS 'The time at which the job ended.';

COMMENT ON COLUMN reveille.workflow_jobs.kind IS 'The kind of the job.';

CREATE VIEW reveille.blocked_jobs_overview AS
 SELECT blocked.id,
    blocked.queue,
    blocked.kind,
    blocked.workflow,
    members.name,
    blocked.needs,
    ARRAY( SELECT first.on_job
           FROM ( SELECT dependencies.on_job,
                    dependencies.label,
                    dependencies.state
                   FROM reveille.dependencies
                  WHERE (dependencies.waiter = blocked.id)
                  ORDER BY dependencies.label
                 LIMIT 1000) first
          WHERE (first.state = ANY (ARRAY['open'::text, 'held'::text]))
          ORDER BY first.label
         LIMIT 10) AS waits_for,
    (EXISTS ( SELECT
           FROM ( SELECT dependencies.state
                   FROM reveille.dependencies
                  WHERE (dependencies.waiter = blocked.id)
                  ORDER BY dependencies.label
                 LIMIT 1000) first
          WHERE (first.state = 'held'::text))) AS is_held,
    blocked.created_at,
    blocked.priority,
    blocked.max_attempts,
    blocked.key,
    blocked.tags,
    blocked.available_at,
    blocked.delay,
    blocked.timeout,
    blocked.parent_id,
    blocked.schedule_id
   FROM (reveille.blocked_jobs blocked
     LEFT JOIN reveille.workflow_jobs members ON ((members.job = blocked.id)));

COMMENT ON VIEW reveille.blocked_jobs_overview IS 'The blocked jobs, and what they wait for. Give a query a `limit`.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.id IS 'The job.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.queue IS 'The queue.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.kind IS 'The kind.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.workflow IS 'The workflow; null: the job belongs to none.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.name IS 'The name of the job within its workflow.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.needs IS 'The number of dependencies that must still be met. At 0 the job waits for the seal of its workflow.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.waits_for IS 'Up to ten of the jobs that the job still waits for, among the first 1,000 by label.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.is_held IS 'True if one of the first 1,000 prerequisites by label is dead and holds the job up.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.created_at IS 'The start of the transaction that enqueued the job.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.priority IS '0 urgent, 1 high, 2 normal, 3 low.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.max_attempts IS 'The number of failures at which the job becomes a dead job.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.key IS 'The key: what the job belongs to, such as a tenant.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.tags IS 'Free labels.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.available_at IS 'The earliest due time; null: the time at which the job is no longer blocked.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.delay IS 'The time from the end of the block to the due time; null: none.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.timeout IS 'The longest run time of one attempt; null: the worker''s setting.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.parent_id IS 'The id of the job whose handler enqueued this job.';

COMMENT ON COLUMN reveille.blocked_jobs_overview.schedule_id IS 'The schedule that enqueued the job.';

CREATE TABLE reveille.chores (
    name text NOT NULL,
    day smallint,
    next_page bigint,
    settings text,
    began_at timestamp with time zone,
    done_at timestamp with time zone
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

COMMENT ON TABLE reveille.chores IS 'The chores of upkeep. A worker locks a chore''s row while it works on one slice of the chore, so that no two workers do the same chore at the same time.';

COMMENT ON COLUMN reveille.chores.name IS 'The chore.';

COMMENT ON COLUMN reveille.chores.day IS 'The day of the history that the chore cleans, as in reveille.finished_jobs; null: the chore cleans no day.';

COMMENT ON COLUMN reveille.chores.next_page IS 'The page of the day''s partition at which the next slice begins; null: no round is under way. A round reads all pages of the partition, slice by slice.';

COMMENT ON COLUMN reveille.chores.settings IS 'The retentions that the last round applied; locked: another session had locked a row, so the day needs another round.';

COMMENT ON COLUMN reveille.chores.began_at IS 'The time at which the last round began.';

COMMENT ON COLUMN reveille.chores.done_at IS 'The time at which the last round ended.';

CREATE TABLE reveille.counters (
    queue text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    worker bigint NOT NULL,
    completed bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    wait_seconds double precision DEFAULT 0 NOT NULL,
    max_wait_seconds double precision DEFAULT 0 NOT NULL,
    run_seconds double precision DEFAULT 0 NOT NULL,
    max_run_seconds double precision DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE reveille.counters IS 'The counts of ended attempts, made as the attempts are settled: one row per queue, worker and 10 seconds. After 5 minutes, upkeep sums these rows into one row per queue and minute (worker 0).';

COMMENT ON COLUMN reveille.counters.queue IS 'The queue.';

COMMENT ON COLUMN reveille.counters.started_at IS 'The start of the 10 seconds, or of the minute if worker is 0.';

COMMENT ON COLUMN reveille.counters.worker IS 'The worker that settled the attempts; no other worker writes the row. 0: all workers together.';

COMMENT ON COLUMN reveille.counters.completed IS 'The number of completed jobs.';

COMMENT ON COLUMN reveille.counters.failed IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.counters.wait_seconds IS 'The sum of the times from the due time to the start.';

COMMENT ON COLUMN reveille.counters.max_wait_seconds IS 'The longest time from the due time to the start.';

COMMENT ON COLUMN reveille.counters.run_seconds IS 'The sum of the run times.';

COMMENT ON COLUMN reveille.counters.max_run_seconds IS 'The longest run time.';

CREATE TABLE reveille.dead_jobs (
    id bigint NOT NULL,
    queue text NOT NULL,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    priority smallint NOT NULL,
    attempts integer NOT NULL,
    failures integer NOT NULL,
    max_attempts integer NOT NULL,
    available_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    unique_key text,
    unique_until text,
    key text,
    timeout interval,
    tags text[],
    metadata jsonb,
    errors jsonb,
    progress jsonb,
    parent_id bigint,
    schedule_id bigint,
    reason text NOT NULL,
    worker bigint,
    wait_seconds double precision,
    run_seconds double precision,
    finished_at timestamp with time zone DEFAULT now() NOT NULL,
    linked boolean DEFAULT false NOT NULL,
    CONSTRAINT reason_is_known CHECK ((reason = ANY (ARRAY['failed'::text, 'permanent'::text, 'timed_out'::text, 'lost'::text, 'undecodable'::text])))
)
WITH (autovacuum_vacuum_insert_scale_factor='0.05');

COMMENT ON TABLE reveille.dead_jobs IS 'Jobs that have failed permanently or have no attempts left, kept until revived (reveille.retry) or purged.';

COMMENT ON COLUMN reveille.dead_jobs.id IS 'The job''s id.';

COMMENT ON COLUMN reveille.dead_jobs.queue IS 'The queue.';

COMMENT ON COLUMN reveille.dead_jobs.kind IS 'The kind; it decided which handler ran the job.';

COMMENT ON COLUMN reveille.dead_jobs.payload IS 'The handler''s input.';

COMMENT ON COLUMN reveille.dead_jobs.priority IS '0 urgent, 1 high, 2 normal, 3 low.';

COMMENT ON COLUMN reveille.dead_jobs.attempts IS 'The number of times the job was reserved.';

COMMENT ON COLUMN reveille.dead_jobs.failures IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.dead_jobs.max_attempts IS 'The number of failures at which the job becomes a dead job.';

COMMENT ON COLUMN reveille.dead_jobs.available_at IS 'The last due time.';

COMMENT ON COLUMN reveille.dead_jobs.created_at IS 'The start of the transaction that enqueued the job.';

COMMENT ON COLUMN reveille.dead_jobs.unique_key IS 'The unique key; a revived job holds it again.';

COMMENT ON COLUMN reveille.dead_jobs.unique_until IS 'As in reveille.jobs.';

COMMENT ON COLUMN reveille.dead_jobs.key IS 'The key: what the job belongs to, such as a tenant.';

COMMENT ON COLUMN reveille.dead_jobs.timeout IS 'The longest run time of one attempt; null: the worker''s setting.';

COMMENT ON COLUMN reveille.dead_jobs.tags IS 'Free labels.';

COMMENT ON COLUMN reveille.dead_jobs.metadata IS 'Free data about the job.';

COMMENT ON COLUMN reveille.dead_jobs.errors IS 'The last 100 failed attempts, oldest first, each with the fields `at`, `worker`, `attempt`, `reason` and `error`.';

COMMENT ON COLUMN reveille.dead_jobs.progress IS 'The latest progress that the handler reported.';

COMMENT ON COLUMN reveille.dead_jobs.parent_id IS 'The id of the job whose handler enqueued this job.';

COMMENT ON COLUMN reveille.dead_jobs.schedule_id IS 'The schedule that enqueued the job.';

COMMENT ON COLUMN reveille.dead_jobs.reason IS '`failed`: no attempts left; `permanent`: the handler reported a permanent failure; `timed_out`: no attempts left, and the last attempt timed out; `lost`: the worker of the last attempt died, and the job could not be tried again; `undecodable`: the job could not be claimed, or its payload did not fit its kind.';

COMMENT ON COLUMN reveille.dead_jobs.worker IS 'The worker of the last attempt.';

COMMENT ON COLUMN reveille.dead_jobs.wait_seconds IS 'The seconds from the due time to the start of the last attempt.';

COMMENT ON COLUMN reveille.dead_jobs.run_seconds IS 'The run time of the last attempt in seconds.';

COMMENT ON COLUMN reveille.dead_jobs.finished_at IS 'The time at which the job became a dead job.';

COMMENT ON COLUMN reveille.dead_jobs.linked IS 'As in reveille.jobs.';

CREATE VIEW reveille.dead_job_list AS
 SELECT dead_jobs.id,
    dead_jobs.queue,
    dead_jobs.kind,
    dead_jobs.priority,
    dead_jobs.attempts,
    dead_jobs.failures,
    dead_jobs.max_attempts,
    dead_jobs.available_at,
    dead_jobs.created_at,
    dead_jobs.unique_key,
    dead_jobs.unique_until,
    dead_jobs.key,
    dead_jobs.timeout,
    dead_jobs.tags,
    dead_jobs.errors,
    dead_jobs.parent_id,
    dead_jobs.schedule_id,
    dead_jobs.reason,
    dead_jobs.worker,
    dead_jobs.wait_seconds,
    dead_jobs.run_seconds,
    dead_jobs.finished_at
   FROM reveille.dead_jobs;

COMMENT ON VIEW reveille.dead_job_list IS 'The columns of reveille.dead_jobs without the payload, the metadata and the progress. Give a query a `limit`.';

COMMENT ON COLUMN reveille.dead_job_list.id IS 'The job''s id.';

COMMENT ON COLUMN reveille.dead_job_list.queue IS 'The queue.';

COMMENT ON COLUMN reveille.dead_job_list.kind IS 'The kind; it decided which handler ran the job.';

COMMENT ON COLUMN reveille.dead_job_list.priority IS '0 urgent, 1 high, 2 normal, 3 low.';

COMMENT ON COLUMN reveille.dead_job_list.attempts IS 'The number of times the job was reserved.';

COMMENT ON COLUMN reveille.dead_job_list.failures IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.dead_job_list.max_attempts IS 'The number of failures at which the job becomes a dead job.';

COMMENT ON COLUMN reveille.dead_job_list.available_at IS 'The last due time.';

COMMENT ON COLUMN reveille.dead_job_list.created_at IS 'The start of the transaction that enqueued the job.';

COMMENT ON COLUMN reveille.dead_job_list.unique_key IS 'The unique key; a revived job holds it again.';

COMMENT ON COLUMN reveille.dead_job_list.unique_until IS 'As in reveille.jobs.';

COMMENT ON COLUMN reveille.dead_job_list.key IS 'The key: what the job belongs to, such as a tenant.';

COMMENT ON COLUMN reveille.dead_job_list.timeout IS 'The longest run time of one attempt; null: the worker''s setting.';

COMMENT ON COLUMN reveille.dead_job_list.tags IS 'Free labels.';

COMMENT ON COLUMN reveille.dead_job_list.errors IS 'The last 100 failed attempts, oldest first, each with the fields `at`, `worker`, `attempt`, `reason` and `error`.';

COMMENT ON COLUMN reveille.dead_job_list.parent_id IS 'The id of the job whose handler enqueued this job.';

COMMENT ON COLUMN reveille.dead_job_list.schedule_id IS 'The schedule that enqueued the job.';

COMMENT ON COLUMN reveille.dead_job_list.reason IS '`failed`: no attempts left; `permanent`: the handler reported a permanent failure; `timed_out`: no attempts left, and the last attempt timed out; `lost`: the worker of the last attempt died, and the job could not be tried again; `undecodable`: the job could not be claimed, or its payload did not fit its kind.';

COMMENT ON COLUMN reveille.dead_job_list.worker IS 'The worker of the last attempt.';

COMMENT ON COLUMN reveille.dead_job_list.wait_seconds IS 'The seconds from the due time to the start of the last attempt.';

COMMENT ON COLUMN reveille.dead_job_list.run_seconds IS 'The run time of the last attempt in seconds.';

COMMENT ON COLUMN reveille.dead_job_list.finished_at IS 'The time at which the job became a dead job.';

CREATE VIEW reveille.dead_jobs_overview AS
 SELECT grouped.queue,
    grouped.kind,
    grouped.reason,
    grouped.jobs,
    grouped.first_died_at,
    grouped.last_died_at,
    last.id AS last_id,
    last.error AS last_error
   FROM (reveille.dead_groups() grouped(queue, kind, reason, jobs, first_died_at, last_died_at)
     LEFT JOIN LATERAL ( SELECT dead_jobs.id,
            ((dead_jobs.errors -> '-1'::integer) ->> 'error'::text) AS error
           FROM reveille.dead_jobs
          WHERE ((dead_jobs.queue = grouped.queue) AND (dead_jobs.kind = grouped.kind) AND (dead_jobs.reason = grouped.reason))
          ORDER BY dead_jobs.queue DESC, dead_jobs.kind DESC, dead_jobs.reason DESC, dead_jobs.finished_at DESC
         LIMIT 1) last ON (true));

COMMENT ON VIEW reveille.dead_jobs_overview IS 'Dead jobs by queue, kind and reason, with the latest dead job of each group.';

COMMENT ON COLUMN reveille.dead_jobs_overview.queue IS 'The queue.';

COMMENT ON COLUMN reveille.dead_jobs_overview.kind IS 'The kind.';

COMMENT ON COLUMN reveille.dead_jobs_overview.reason IS 'The reason why the jobs are dead, as in reveille.dead_jobs.';

COMMENT ON COLUMN reveille.dead_jobs_overview.jobs IS 'The number of dead jobs.';

COMMENT ON COLUMN reveille.dead_jobs_overview.first_died_at IS 'The time at which the first of these jobs became a dead job.';

COMMENT ON COLUMN reveille.dead_jobs_overview.last_died_at IS 'The time at which the last of these jobs became a dead job.';

COMMENT ON COLUMN reveille.dead_jobs_overview.last_id IS 'The id of the job that became a dead job last.';

COMMENT ON COLUMN reveille.dead_jobs_overview.last_error IS 'The last error of the job last_id.';

CREATE TABLE reveille.ends (
    id bigint NOT NULL,
    outcome text NOT NULL,
    result jsonb,
    errors jsonb,
    ended_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    queue text,
    worker bigint,
    attempt integer,
    CONSTRAINT outcome_is_known CHECK ((outcome = ANY (ARRAY['completed'::text, 'cancelled'::text])))
);

COMMENT ON TABLE reveille.ends IS 'The endings of jobs from queues without history, if the jobs are awaited or were completed by reveille.complete_in, kept for at least a minute. reveille.await reads this table, and so does a worker that finds its job gone.';

COMMENT ON COLUMN reveille.ends.id IS 'The job''s id.';

COMMENT ON COLUMN reveille.ends.outcome IS 'completed or cancelled; a dead job is in reveille.dead_jobs.';

COMMENT ON COLUMN reveille.ends.result IS 'The result that the handler returned.';

COMMENT ON COLUMN reveille.ends.errors IS 'The failed attempts, as in reveille.finished_jobs.';

COMMENT ON COLUMN reveille.ends.ended_at IS 'The time at which the job ended; upkeep deletes the row at least a minute later.';

COMMENT ON COLUMN reveille.ends.queue IS 'The queue of a job that reveille.complete_in completed; else null.';

COMMENT ON COLUMN reveille.ends.worker IS 'The worker for which reveille.complete_in completed the job; else null.';

COMMENT ON COLUMN reveille.ends.attempt IS 'The attempt in which reveille.complete_in completed the job; else null.';

CREATE TABLE reveille.events (
    name text NOT NULL,
    payload jsonb DEFAULT 'null'::jsonb NOT NULL,
    emitted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    until timestamp with time zone DEFAULT (clock_timestamp() + '30 days'::interval) NOT NULL,
    seen boolean DEFAULT false NOT NULL,
    CONSTRAINT name_has_1_to_512_bytes CHECK (((octet_length(name) >= 1) AND (octet_length(name) <= 512))),
    CONSTRAINT payload_is_at_most_8_kib CHECK (((octet_length((payload)::text) <= 8192) OR starts_with(name, 'reveille:end:'::text)))
);

COMMENT ON TABLE reveille.events IS 'Events that were emitted. The first emit of a name wins, until upkeep deletes the event 30 days later.';

COMMENT ON COLUMN reveille.events.name IS 'The event''s name.';

COMMENT ON COLUMN reveille.events.payload IS 'The event''s payload: any JSON, at most 8 KiB of text. The end of a job that a handler runs has more: its result.';

COMMENT ON COLUMN reveille.events.emitted_at IS 'The time at which the event was emitted.';

COMMENT ON COLUMN reveille.events.until IS 'The time after which upkeep deletes the event, unless a job still waits for it.';

COMMENT ON COLUMN reveille.events.seen IS 'True once a pass over events and waits has paired the row with all waits that were there.';

CREATE TABLE reveille.jobs (
    id bigint NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    kind text NOT NULL,
    payload jsonb DEFAULT '{}'::jsonb NOT NULL,
    priority smallint DEFAULT 2 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    max_attempts integer DEFAULT 20 NOT NULL,
    reserved_at timestamp with time zone,
    reserved_by bigint,
    paused_by bigint,
    available_at timestamp with time zone DEFAULT now() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    cancel_requested_at timestamp with time zone,
    unique_key text,
    unique_until text,
    key text,
    timeout interval,
    tags text[],
    metadata jsonb,
    errors jsonb,
    progress jsonb,
    parent_id bigint,
    schedule_id bigint,
    limited boolean,
    awaited boolean DEFAULT false NOT NULL,
    linked boolean DEFAULT false NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0', toast.autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE reveille.jobs IS 'Live jobs: waiting, delayed (available_at in the future) or reserved by a worker. An insert wakes a worker that sleeps on the job''s queue.';

COMMENT ON COLUMN reveille.jobs.id IS 'The id; no other job gets it, and the job keeps it when it moves to dead_jobs or finished_jobs.';

COMMENT ON COLUMN reveille.jobs.queue IS 'The queue; it exists as soon as a job names it.';

COMMENT ON COLUMN reveille.jobs.kind IS 'The kind; it decides which handler runs the job.';

COMMENT ON COLUMN reveille.jobs.payload IS 'The handler''s input: any JSON, at most 8 MiB of text.';

COMMENT ON COLUMN reveille.jobs.priority IS '0 urgent, 1 high, 2 normal, 3 low; jobs with the lowest number start first.';

COMMENT ON COLUMN reveille.jobs.attempts IS 'The number of times the job has been reserved.';

COMMENT ON COLUMN reveille.jobs.failures IS 'The number of failed attempts: by an error, a timeout, a panic, or a worker that died.';

COMMENT ON COLUMN reveille.jobs.max_attempts IS 'The number of failures at which the job becomes a dead job.';

COMMENT ON COLUMN reveille.jobs.reserved_at IS 'The time at which a worker reserved the job; null while it waits.';

COMMENT ON COLUMN reveille.jobs.reserved_by IS 'The worker that holds the job (reveille.workers.id); null while it waits.';

COMMENT ON COLUMN reveille.jobs.paused_by IS 'The pause that keeps the job parked (reveille.pauses.id); null: no claim has parked the job. No worker claims a parked job.';

COMMENT ON COLUMN reveille.jobs.available_at IS 'The due time, before which the job does not start.';

COMMENT ON COLUMN reveille.jobs.created_at IS 'The start of the transaction that enqueued the job.';

COMMENT ON COLUMN reveille.jobs.cancel_requested_at IS 'The time at which a cancel of the running job was requested; the job''s handler is asked to stop.';

COMMENT ON COLUMN reveille.jobs.unique_key IS 'The unique key: at most one live job of a kind has it.';

COMMENT ON COLUMN reveille.jobs.unique_until IS '`started`: the unique key is given up when the job first starts; `finished` (or null): when the job ends.';

COMMENT ON COLUMN reveille.jobs.key IS 'The key: what the job belongs to, such as a tenant or an account, for limits and order per key.';

COMMENT ON COLUMN reveille.jobs.timeout IS 'The longest run time of one attempt; null: the worker''s setting.';

COMMENT ON COLUMN reveille.jobs.tags IS 'Free labels: at most 64, together at most 16 KiB.';

COMMENT ON COLUMN reveille.jobs.metadata IS 'Free data about the job, such as a trace context: a JSON object, at most 256 KiB of text.';

COMMENT ON COLUMN reveille.jobs.errors IS 'The last 100 failed attempts, oldest first, each with the fields `at`, `worker`, `attempt`, `reason` and `error`.';

COMMENT ON COLUMN reveille.jobs.progress IS 'The latest progress that the handler reported.';

COMMENT ON COLUMN reveille.jobs.parent_id IS 'The id of the job whose handler enqueued this job.';

COMMENT ON COLUMN reveille.jobs.schedule_id IS 'The schedule that enqueued the job.';

COMMENT ON COLUMN reveille.jobs.limited IS 'True if the reservation counts for the queue''s limits: set when the job is claimed from a queue with limits.';

COMMENT ON COLUMN reveille.jobs.awaited IS 'True if a program awaits the job: its end is notified on the channel reveille.finished.';

COMMENT ON COLUMN reveille.jobs.linked IS 'True if the job waits or has waited for other jobs, if others wait for it, if it belongs to a workflow, or if it has recorded a step. The end of a linked job is noted in reveille.linked_ends.';

CREATE VIEW reveille.failing_jobs AS
 SELECT jobs.id,
    jobs.queue,
    jobs.kind,
    jobs.attempts,
    jobs.failures,
    jobs.max_attempts,
    ((jobs.errors -> '-1'::integer) ->> 'error'::text) AS last_error,
    (((jobs.errors -> '-1'::integer) ->> 'at'::text))::timestamp with time zone AS last_failed_at,
    jobs.available_at AS next_try_at,
    (jobs.reserved_at IS NOT NULL) AS running
   FROM reveille.jobs
  WHERE (jobs.failures > 0);

COMMENT ON VIEW reveille.failing_jobs IS 'Live jobs with at least one failure, with their last error and next attempt.';

COMMENT ON COLUMN reveille.failing_jobs.id IS 'The job.';

COMMENT ON COLUMN reveille.failing_jobs.queue IS 'The queue.';

COMMENT ON COLUMN reveille.failing_jobs.kind IS 'The kind.';

COMMENT ON COLUMN reveille.failing_jobs.attempts IS 'The number of times the job has been reserved.';

COMMENT ON COLUMN reveille.failing_jobs.failures IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.failing_jobs.max_attempts IS 'The number of failures at which the job becomes a dead job.';

COMMENT ON COLUMN reveille.failing_jobs.last_error IS 'The error of the last failed attempt.';

COMMENT ON COLUMN reveille.failing_jobs.last_failed_at IS 'The time of the last failure.';

COMMENT ON COLUMN reveille.failing_jobs.next_try_at IS 'The due time of the next attempt.';

COMMENT ON COLUMN reveille.failing_jobs.running IS 'True if a worker holds the job.';

CREATE TABLE reveille.finished_jobs (
    day smallint NOT NULL,
    id bigint NOT NULL,
    queue text NOT NULL,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    priority smallint NOT NULL,
    attempts integer NOT NULL,
    failures integer NOT NULL,
    max_attempts integer NOT NULL,
    available_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    key text,
    tags text[],
    metadata jsonb,
    errors jsonb,
    progress jsonb,
    parent_id bigint,
    schedule_id bigint,
    outcome text NOT NULL,
    result jsonb,
    worker bigint,
    wait_seconds double precision,
    run_seconds double precision,
    finished_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT outcome_is_known CHECK ((outcome = ANY (ARRAY['completed'::text, 'cancelled'::text])))
)
PARTITION BY LIST (day);

ALTER TABLE ONLY reveille.finished_jobs REPLICA IDENTITY FULL;

COMMENT ON TABLE reveille.finished_jobs IS 'Completed and cancelled jobs, kept for their queue''s retention (1 day unless reveille.queues has another).';

COMMENT ON COLUMN reveille.finished_jobs.day IS 'The partition: the UTC day on which the job ended, counted in days since 1970, modulo 32.';

COMMENT ON COLUMN reveille.finished_jobs.id IS 'The job''s id.';

COMMENT ON COLUMN reveille.finished_jobs.queue IS 'The queue.';

COMMENT ON COLUMN reveille.finished_jobs.kind IS 'The kind; it decided which handler ran the job.';

COMMENT ON COLUMN reveille.finished_jobs.payload IS 'The handler''s input.';

COMMENT ON COLUMN reveille.finished_jobs.priority IS '0 urgent, 1 high, 2 normal, 3 low.';

COMMENT ON COLUMN reveille.finished_jobs.attempts IS 'The number of times the job was reserved.';

COMMENT ON COLUMN reveille.finished_jobs.failures IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.finished_jobs.max_attempts IS 'The number of failures at which the job would have become a dead job.';

COMMENT ON COLUMN reveille.finished_jobs.available_at IS 'The last due time.';

COMMENT ON COLUMN reveille.finished_jobs.created_at IS 'The start of the transaction that enqueued the job.';

COMMENT ON COLUMN reveille.finished_jobs.key IS 'The key: what the job belongs to, such as a tenant.';

COMMENT ON COLUMN reveille.finished_jobs.tags IS 'Free labels.';

COMMENT ON COLUMN reveille.finished_jobs.metadata IS 'Free data about the job.';

COMMENT ON COLUMN reveille.finished_jobs.errors IS 'The last 100 failed attempts, oldest first, each with the fields `at`, `worker`, `attempt`, `reason` and `error`.';

COMMENT ON COLUMN reveille.finished_jobs.progress IS 'The latest progress that the handler reported.';

COMMENT ON COLUMN reveille.finished_jobs.parent_id IS 'The id of the job whose handler enqueued this job.';

COMMENT ON COLUMN reveille.finished_jobs.schedule_id IS 'The schedule that enqueued the job.';

COMMENT ON COLUMN reveille.finished_jobs.outcome IS '`completed` or `cancelled`.';

COMMENT ON COLUMN reveille.finished_jobs.result IS 'The result that the handler returned.';

COMMENT ON COLUMN reveille.finished_jobs.worker IS 'The worker of the last attempt; null if the job was cancelled while it waited.';

COMMENT ON COLUMN reveille.finished_jobs.wait_seconds IS 'The seconds from the due time to the start of the last attempt.';

COMMENT ON COLUMN reveille.finished_jobs.run_seconds IS 'The run time of the last attempt in seconds.';

COMMENT ON COLUMN reveille.finished_jobs.finished_at IS 'The time at which the job ended.';

CREATE VIEW reveille.finished_job_list AS
 SELECT finished_jobs.day,
    finished_jobs.id,
    finished_jobs.queue,
    finished_jobs.kind,
    finished_jobs.priority,
    finished_jobs.attempts,
    finished_jobs.failures,
    finished_jobs.max_attempts,
    finished_jobs.available_at,
    finished_jobs.created_at,
    finished_jobs.key,
    finished_jobs.tags,
    finished_jobs.errors,
    finished_jobs.parent_id,
    finished_jobs.schedule_id,
    finished_jobs.outcome,
    finished_jobs.worker,
    finished_jobs.wait_seconds,
    finished_jobs.run_seconds,
    finished_jobs.finished_at
   FROM reveille.finished_jobs;

COMMENT ON VIEW reveille.finished_job_list IS 'The columns of reveille.finished_jobs without the payload, the metadata, the progress and the result. Give a query a `limit`.';

COMMENT ON COLUMN reveille.finished_job_list.day IS 'The partition: the UTC day on which the job ended, counted in days since 1970, modulo 32.';

COMMENT ON COLUMN reveille.finished_job_list.id IS 'The job''s id.';

COMMENT ON COLUMN reveille.finished_job_list.queue IS 'The queue.';

COMMENT ON COLUMN reveille.finished_job_list.kind IS 'The kind; it decided which handler ran the job.';

COMMENT ON COLUMN reveille.finished_job_list.priority IS '0 urgent, 1 high, 2 normal, 3 low.';

COMMENT ON COLUMN reveille.finished_job_list.attempts IS 'The number of times the job was reserved.';

COMMENT ON COLUMN reveille.finished_job_list.failures IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.finished_job_list.max_attempts IS 'The number of failures at which the job would have become a dead job.';

COMMENT ON COLUMN reveille.finished_job_list.available_at IS 'The last due time.';

COMMENT ON COLUMN reveille.finished_job_list.created_at IS 'The start of the transaction that enqueued the job.';

COMMENT ON COLUMN reveille.finished_job_list.key IS 'The key: what the job belongs to, such as a tenant.';

COMMENT ON COLUMN reveille.finished_job_list.tags IS 'Free labels.';

COMMENT ON COLUMN reveille.finished_job_list.errors IS 'The last 100 failed attempts, oldest first, each with the fields `at`, `worker`, `attempt`, `reason` and `error`.';

COMMENT ON COLUMN reveille.finished_job_list.parent_id IS 'The id of the job whose handler enqueued this job.';

COMMENT ON COLUMN reveille.finished_job_list.schedule_id IS 'The schedule that enqueued the job.';

COMMENT ON COLUMN reveille.finished_job_list.outcome IS '`completed` or `cancelled`.';

COMMENT ON COLUMN reveille.finished_job_list.worker IS 'The worker of the last attempt; null if the job was cancelled while it waited.';

COMMENT ON COLUMN reveille.finished_job_list.wait_seconds IS 'The seconds from the due time to the start of the last attempt.';

COMMENT ON COLUMN reveille.finished_job_list.run_seconds IS 'The run time of the last attempt in seconds.';

COMMENT ON COLUMN reveille.finished_job_list.finished_at IS 'The time at which the job ended.';

CREATE TABLE reveille.finished_jobs_0 (
    day smallint NOT NULL,
    id bigint NOT NULL,
    queue text NOT NULL,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    priority smallint NOT NULL,
    attempts integer NOT NULL,
    failures integer NOT NULL,
    max_attempts integer NOT NULL,
    available_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    key text,
    tags text[],
    metadata jsonb,
    errors jsonb,
    progress jsonb,
    parent_id bigint,
    schedule_id bigint,
    outcome text NOT NULL,
    result jsonb,
    worker bigint,
    wait_seconds double precision,
    run_seconds double precision,
    finished_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT outcome_is_known CHECK ((outcome = ANY (ARRAY['completed'::text, 'cancelled'::text])))
)
WITH (autovacuum_vacuum_insert_threshold='-1', toast.autovacuum_vacuum_insert_threshold='-1');

ALTER TABLE ONLY reveille.finished_jobs_0 REPLICA IDENTITY FULL;

CREATE SEQUENCE reveille.head_0_available_at
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE reveille.head_0_available_at IS 'The due time of the place that the claims of a queue have reached, in microseconds since 1970. The sequence _id has the place''s id; _seal has a checksum that shows that queue, level, due time and id belong together.';

CREATE SEQUENCE reveille.head_0_id
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE SEQUENCE reveille.head_0_seal
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    NO MAXVALUE
    CACHE 1;

CREATE VIEW reveille.job_dependencies AS
 SELECT dependencies.waiter,
    dependencies.on_job,
    dependencies.label,
    dependencies.fires_on,
    dependencies.on_dead,
    dependencies.state
   FROM reveille.dependencies;

COMMENT ON VIEW reveille.job_dependencies IS 'Which job waits for which, and for which outcome. Give a query a condition on `waiter` or `on_job`.';

COMMENT ON COLUMN reveille.job_dependencies.waiter IS 'The job that waits.';

COMMENT ON COLUMN reveille.job_dependencies.on_job IS 'The prerequisite: the job that is waited for.';

COMMENT ON COLUMN reveille.job_dependencies.label IS 'The name under which the waiting job reads the result of the other.';

COMMENT ON COLUMN reveille.job_dependencies.fires_on IS 'The outcome that meets the dependency: `completed`, `dead`, `cancelled` or `any`. Skipped jobs count as cancelled.';

COMMENT ON COLUMN reveille.job_dependencies.on_dead IS 'What a dead prerequisite does to a dependency on `completed`: `hold`: it waits until that job is revived or purged; `cancel`: it is skipped.';

COMMENT ON COLUMN reveille.job_dependencies.state IS '`open`: the prerequisite has not ended; `met`; `held`: the prerequisite is dead; `skipped`: it can no longer be met.';

CREATE VIEW reveille.job_list AS
 SELECT jobs.id,
    jobs.queue,
    jobs.kind,
    jobs.priority,
    jobs.attempts,
    jobs.failures,
    jobs.max_attempts,
    jobs.reserved_at,
    jobs.reserved_by,
    jobs.available_at,
    jobs.created_at,
    jobs.cancel_requested_at,
    jobs.unique_key,
    jobs.unique_until,
    jobs.key,
    jobs.timeout,
    jobs.tags,
    jobs.errors,
    jobs.parent_id,
    jobs.schedule_id,
    jobs.paused_by
   FROM reveille.jobs;

COMMENT ON VIEW reveille.job_list IS 'The columns of reveille.jobs without the payload, the metadata and the progress, for roles that may not read these. Give a query a `limit`.';

COMMENT ON COLUMN reveille.job_list.id IS 'The id; no other job gets it, and the job keeps it when it moves to dead_jobs or finished_jobs.';

COMMENT ON COLUMN reveille.job_list.queue IS 'The queue; it exists as soon as a job names it.';

COMMENT ON COLUMN reveille.job_list.kind IS 'The kind; it decides which handler runs the job.';

COMMENT ON COLUMN reveille.job_list.priority IS '0 urgent, 1 high, 2 normal, 3 low; jobs with the lowest number start first.';

COMMENT ON COLUMN reveille.job_list.attempts IS 'The number of times the job has been reserved.';

COMMENT ON COLUMN reveille.job_list.failures IS 'The number of failed attempts: by an error, a timeout, a panic, or a worker that died.';

COMMENT ON COLUMN reveille.job_list.max_attempts IS 'The number of failures at which the job becomes a dead job.';

COMMENT ON COLUMN reveille.job_list.reserved_at IS 'The time at which a worker reserved the job; null while it waits.';

COMMENT ON COLUMN reveille.job_list.reserved_by IS 'The worker that holds the job (reveille.workers.id); null while it waits.';

COMMENT ON COLUMN reveille.job_list.available_at IS 'The due time, before which the job does not start.';

COMMENT ON COLUMN reveille.job_list.created_at IS 'The start of the transaction that enqueued the job.';

COMMENT ON COLUMN reveille.job_list.cancel_requested_at IS 'The time at which a cancel of the running job was requested; the job''s handler is asked to stop.';

COMMENT ON COLUMN reveille.job_list.unique_key IS 'The unique key: at most one live job of a kind has it.';

COMMENT ON COLUMN reveille.job_list.unique_until IS '`started`: the unique key is given up when the job first starts; `finished` (or null): when the job ends.';

COMMENT ON COLUMN reveille.job_list.key IS 'The key: what the job belongs to, such as a tenant or an account, for limits and order per key.';

COMMENT ON COLUMN reveille.job_list.timeout IS 'The longest run time of one attempt; null: the worker''s setting.';

COMMENT ON COLUMN reveille.job_list.tags IS 'Free labels: at most 64, together at most 16 KiB.';

COMMENT ON COLUMN reveille.job_list.errors IS 'The last 100 failed attempts, oldest first, each with the fields `at`, `worker`, `attempt`, `reason` and `error`.';

COMMENT ON COLUMN reveille.job_list.parent_id IS 'The id of the job whose handler enqueued this job.';

COMMENT ON COLUMN reveille.job_list.schedule_id IS 'The schedule that enqueued the job.';

COMMENT ON COLUMN reveille.job_list.paused_by IS 'The pause that keeps the job parked (reveille.pauses.id); null: no claim has parked the job. No worker claims a parked job.';

CREATE TABLE reveille.steps (
    job bigint NOT NULL,
    name text NOT NULL,
    kind text DEFAULT 'step'::text NOT NULL,
    value jsonb,
    until timestamp with time zone,
    outcome text,
    attempt integer NOT NULL,
    reserved_at timestamp with time zone NOT NULL,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT a_step_is_done_and_has_a_value CHECK (((kind <> 'step'::text) OR ((outcome IS NOT NULL) AND (outcome = 'done'::text) AND (value IS NOT NULL)))),
    CONSTRAINT kind_is_known CHECK ((kind = ANY (ARRAY['step'::text, 'sleep'::text, 'wait'::text]))),
    CONSTRAINT name_has_1_to_512_bytes CHECK (((octet_length(name) >= 1) AND (octet_length(name) <= 512))),
    CONSTRAINT outcome_is_known CHECK ((outcome = ANY (ARRAY['done'::text, 'timed_out'::text]))),
    CONSTRAINT sleeps_and_waits_have_an_end CHECK (((kind = 'step'::text) OR (until IS NOT NULL)))
);

COMMENT ON TABLE reveille.steps IS 'What the handlers of jobs have done: values of steps, and the sleeps and waits of jobs. A later attempt goes on behind them. They are kept until the job is completed, cancelled or purged.';

COMMENT ON COLUMN reveille.steps.job IS 'The job''s id.';

COMMENT ON COLUMN reveille.steps.name IS 'The name of the step or the sleep, or the event that the job waits for.';

COMMENT ON COLUMN reveille.steps.kind IS '`step`, `sleep` or `wait`.';

COMMENT ON COLUMN reveille.steps.value IS 'Of a step: the value that its code returned. Of a wait: the event''s payload; null: the event has not come.';

COMMENT ON COLUMN reveille.steps.until IS 'Of a sleep or a wait: the time at which it ends at the latest.';

COMMENT ON COLUMN reveille.steps.outcome IS '`done`; `timed_out`: the event did not come in time; null: the sleep or the wait is not over.';

COMMENT ON COLUMN reveille.steps.attempt IS 'The attempt that first recorded the row.';

COMMENT ON COLUMN reveille.steps.reserved_at IS 'The time of the reservation that first recorded the row.';

COMMENT ON COLUMN reveille.steps.recorded_at IS 'The time at which the row was recorded, or got its outcome.';

CREATE VIEW reveille.job_steps AS
 SELECT steps.job,
    steps.name,
    steps.kind,
    steps.until,
    steps.outcome,
    steps.attempt,
    steps.recorded_at
   FROM reveille.steps;

COMMENT ON VIEW reveille.job_steps IS 'The steps, sleeps and waits that the handlers of jobs have recorded, without their values. Give a query a condition on `job`.';

COMMENT ON COLUMN reveille.job_steps.job IS 'The job''s id.';

COMMENT ON COLUMN reveille.job_steps.name IS 'The name of the step or the sleep, or the event that the job waits for.';

COMMENT ON COLUMN reveille.job_steps.kind IS '`step`, `sleep` or `wait`.';

COMMENT ON COLUMN reveille.job_steps.until IS 'Of a sleep or a wait: the time at which it ends at the latest.';

COMMENT ON COLUMN reveille.job_steps.outcome IS '`done`; `timed_out`: the event did not come in time; null: the sleep or the wait is not over.';

COMMENT ON COLUMN reveille.job_steps.attempt IS 'The attempt that first recorded the row.';

COMMENT ON COLUMN reveille.job_steps.recorded_at IS 'The time at which the row was recorded, or got its outcome.';

ALTER TABLE reveille.jobs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reveille.jobs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reveille.kind_counters (
    queue text NOT NULL,
    kind text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    completed bigint NOT NULL,
    failed bigint NOT NULL,
    wait_seconds double precision NOT NULL,
    run_seconds double precision NOT NULL,
    waits bigint[] NOT NULL,
    runs bigint[] NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE reveille.kind_counters IS 'The counts of ended attempts by kind: one row per queue, kind and 10 minutes of the last 7 days, and one row for all times. Each worker adds its counts every 10 seconds. At most 200 pairs of a queue and a kind are counted; the other jobs of a queue count as the kind (other).';

COMMENT ON COLUMN reveille.kind_counters.queue IS 'The queue.';

COMMENT ON COLUMN reveille.kind_counters.kind IS 'The kind; (other): all kinds that have no row of their own.';

COMMENT ON COLUMN reveille.kind_counters.started_at IS 'The start of the 10 minutes; -infinity: all times.';

COMMENT ON COLUMN reveille.kind_counters.completed IS 'The number of completed jobs.';

COMMENT ON COLUMN reveille.kind_counters.failed IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.kind_counters.wait_seconds IS 'The sum of the times from the due time to the start.';

COMMENT ON COLUMN reveille.kind_counters.run_seconds IS 'The sum of the run times.';

COMMENT ON COLUMN reveille.kind_counters.waits IS 'The number of attempts by their time from the due time to the start: one number for each bucket of reveille.histogram_bounds(), and one for longer times.';

COMMENT ON COLUMN reveille.kind_counters.runs IS 'The number of attempts by their run time, in the same buckets.';

CREATE VIEW reveille.kind_stats AS
 SELECT counts.queue,
    counts.kind,
    (counts.completed)::bigint AS completed,
    (counts.failed)::bigint AS failed,
    (counts.wait_seconds / (NULLIF((counts.completed + counts.failed), (0)::numeric))::double precision) AS mean_wait_seconds,
    reveille.histogram_quantile(histograms.waits, (0.5)::double precision) AS median_wait_seconds,
    reveille.histogram_quantile(histograms.waits, (0.95)::double precision) AS p95_wait_seconds,
    (counts.run_seconds / (NULLIF((counts.completed + counts.failed), (0)::numeric))::double precision) AS mean_run_seconds,
    reveille.histogram_quantile(histograms.runs, (0.5)::double precision) AS median_run_seconds,
    reveille.histogram_quantile(histograms.runs, (0.95)::double precision) AS p95_run_seconds
   FROM (( SELECT kind_counters.queue,
            kind_counters.kind,
            sum(kind_counters.completed) AS completed,
            sum(kind_counters.failed) AS failed,
            sum(kind_counters.wait_seconds) AS wait_seconds,
            sum(kind_counters.run_seconds) AS run_seconds
           FROM reveille.kind_counters
          WHERE (kind_counters.started_at > (now() - '01:00:00'::interval))
          GROUP BY kind_counters.queue, kind_counters.kind) counts
     JOIN ( SELECT buckets.queue,
            buckets.kind,
            array_agg(buckets.waits ORDER BY buckets.bucket) AS waits,
            array_agg(buckets.runs ORDER BY buckets.bucket) AS runs
           FROM ( SELECT kind_counters.queue,
                    kind_counters.kind,
                    buckets_1.bucket,
                    (sum(buckets_1.waiting))::bigint AS waits,
                    (sum(buckets_1.running))::bigint AS runs
                   FROM (reveille.kind_counters
                     CROSS JOIN LATERAL UNNEST(kind_counters.waits, kind_counters.runs) WITH ORDINALITY buckets_1(waiting, running, bucket))
                  WHERE (kind_counters.started_at > (now() - '01:00:00'::interval))
                  GROUP BY kind_counters.queue, kind_counters.kind, buckets_1.bucket) buckets
          GROUP BY buckets.queue, buckets.kind) histograms USING (queue, kind));

COMMENT ON VIEW reveille.kind_stats IS 'One row per queue and kind with attempts in the last 50 to 60 minutes: their numbers and times. Medians and 95th percentiles are estimates from histograms.';

COMMENT ON COLUMN reveille.kind_stats.queue IS 'The queue.';

COMMENT ON COLUMN reveille.kind_stats.kind IS 'The kind; (other): all kinds past the first 200.';

COMMENT ON COLUMN reveille.kind_stats.completed IS 'The number of completed jobs.';

COMMENT ON COLUMN reveille.kind_stats.failed IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.kind_stats.mean_wait_seconds IS 'The mean time from the due time to the start.';

COMMENT ON COLUMN reveille.kind_stats.median_wait_seconds IS 'The median time from the due time to the start.';

COMMENT ON COLUMN reveille.kind_stats.p95_wait_seconds IS 'The time from the due time to the start that 95 % of the attempts did not exceed.';

COMMENT ON COLUMN reveille.kind_stats.mean_run_seconds IS 'The mean run time.';

COMMENT ON COLUMN reveille.kind_stats.median_run_seconds IS 'The median run time.';

COMMENT ON COLUMN reveille.kind_stats.p95_run_seconds IS 'The run time that 95 % of the attempts did not exceed.';

CREATE VIEW reveille.kind_totals AS
 SELECT kind_counters.queue,
    kind_counters.kind,
    kind_counters.completed,
    kind_counters.failed,
    kind_counters.wait_seconds,
    kind_counters.run_seconds,
    kind_counters.waits,
    kind_counters.runs
   FROM reveille.kind_counters
  WHERE (kind_counters.started_at = '-infinity'::timestamp with time zone);

COMMENT ON VIEW reveille.kind_totals IS 'One row per queue and kind: the counts of all attempts that ever ended, as the workers have added them every 10 seconds. A kind without an attempt for 7 days has no row.';

COMMENT ON COLUMN reveille.kind_totals.queue IS 'The queue.';

COMMENT ON COLUMN reveille.kind_totals.kind IS 'The kind; (other): all kinds past the first 200.';

COMMENT ON COLUMN reveille.kind_totals.completed IS 'The number of completed jobs.';

COMMENT ON COLUMN reveille.kind_totals.failed IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.kind_totals.wait_seconds IS 'The sum of the times from the due time to the start.';

COMMENT ON COLUMN reveille.kind_totals.run_seconds IS 'The sum of the run times.';

COMMENT ON COLUMN reveille.kind_totals.waits IS 'The number of attempts by their time from the due time to the start, in the buckets of reveille.histogram_bounds(), and one for longer times.';

COMMENT ON COLUMN reveille.kind_totals.runs IS 'The number of attempts by their run time, in the same buckets.';

CREATE TABLE reveille.queues (
    name text NOT NULL,
    paused_at timestamp with time zone,
    retention interval,
    max_running integer,
    max_running_per_key integer,
    rate_limit integer,
    rate_period interval,
    rate_burst integer,
    rate_per_key integer,
    bell boolean DEFAULT true NOT NULL,
    ordered boolean DEFAULT false NOT NULL,
    limited text GENERATED ALWAYS AS (
CASE
    WHEN (ordered OR (max_running_per_key IS NOT NULL) OR (rate_per_key IS NOT NULL)) THEN 'key'::text
    WHEN ((max_running IS NOT NULL) OR (rate_limit IS NOT NULL)) THEN 'queue'::text
    ELSE NULL::text
END) STORED,
    limited_since timestamp with time zone,
    dead_retention interval,
    CONSTRAINT dead_retention_is_0_to_100_years CHECK (((dead_retention >= '00:00:00'::interval) AND (dead_retention <= '36500 days'::interval))),
    CONSTRAINT limits_are_positive CHECK (((max_running > 0) AND (max_running_per_key > 0) AND (rate_limit > 0) AND (rate_burst > 0) AND (rate_per_key > 0))),
    CONSTRAINT name_has_1_to_128_characters CHECK (((length(name) >= 1) AND (length(name) <= 128))),
    CONSTRAINT rate_period_is_1_millisecond_to_30_days CHECK (((rate_period >= '00:00:00.001'::interval) AND (rate_period <= '30 days'::interval))),
    CONSTRAINT retention_is_0_to_30_days CHECK (((retention >= '00:00:00'::interval) AND (retention <= '30 days'::interval)))
);

COMMENT ON TABLE reveille.queues IS 'Settings per queue; a queue without a row has the defaults.';

COMMENT ON COLUMN reveille.queues.name IS 'The queue.';

COMMENT ON COLUMN reveille.queues.paused_at IS 'The time at which the queue was paused; none of its jobs starts while it is paused. Null: it is not paused.';

COMMENT ON COLUMN reveille.queues.retention IS 'The time for which finished jobs are kept, to within an hour: 0 to 30 days; null: 1 day; 0: finished jobs are not stored.';

COMMENT ON COLUMN reveille.queues.max_running IS 'The maximum number of running jobs of the queue, all workers together; null: no limit.';

COMMENT ON COLUMN reveille.queues.max_running_per_key IS 'The maximum number of running jobs with the same key; null: no limit.';

COMMENT ON COLUMN reveille.queues.rate_limit IS 'The maximum number of jobs of the queue that start in each rate_period; null: no limit.';

COMMENT ON COLUMN reveille.queues.rate_period IS 'The period of rate_limit and rate_per_key; null: 1 second.';

COMMENT ON COLUMN reveille.queues.rate_burst IS 'The number of jobs that may start at once after a time without starts, for the queue and for each key; null: 1.';

COMMENT ON COLUMN reveille.queues.rate_per_key IS 'The maximum number of jobs with the same key that start in each rate_period; null: no limit.';

COMMENT ON COLUMN reveille.queues.bell IS '`false`: enqueuing sends no NOTIFY; workers find the jobs at their next poll.';

COMMENT ON COLUMN reveille.queues.ordered IS 'True if jobs with the same key run one at a time, in the order of their ids.';

COMMENT ON COLUMN reveille.queues.limited IS 'key: the queue has an order or a limit per key; queue: it has only limits for the whole queue; null: it has neither limits nor an order.';

COMMENT ON COLUMN reveille.queues.limited_since IS 'The time from which the queue has had limits or an order without a break; null: it has neither. A trigger sets this column.';

COMMENT ON COLUMN reveille.queues.dead_retention IS 'The time for which dead jobs are kept: 0 to 36500 days; null: until they are revived or purged.';

CREATE TABLE reveille.workers (
    id bigint NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    queues text[] NOT NULL,
    kinds text[],
    slots integer NOT NULL,
    queue_slots integer[] DEFAULT '{}'::integer[] NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    last_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    holds_lock boolean DEFAULT false NOT NULL,
    stopping boolean DEFAULT false NOT NULL,
    stop_requested_at timestamp with time zone,
    stuck_jobs bigint[],
    stuck_since timestamp with time zone[],
    backend integer,
    applies_ends boolean DEFAULT false NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE reveille.workers IS 'Live worker processes, one row each, updated by their heartbeats. A rescue takes back each job that is reserved by a worker without a row.';

COMMENT ON COLUMN reveille.workers.id IS 'A random number, new at each start of the worker.';

COMMENT ON COLUMN reveille.workers.host IS 'The name of the worker''s host.';

COMMENT ON COLUMN reveille.workers.pid IS 'The process id on that host.';

COMMENT ON COLUMN reveille.workers.version IS 'The version of Reveille that the worker runs.';

COMMENT ON COLUMN reveille.workers.queues IS 'The queues that the worker works.';

COMMENT ON COLUMN reveille.workers.kinds IS 'The kinds for which the worker has a handler; null: it has a handler for every kind.';

COMMENT ON COLUMN reveille.workers.slots IS 'The number of slots, all queues together.';

COMMENT ON COLUMN reveille.workers.queue_slots IS 'The number of slots of each queue, in the order of queues. The worker reads it at each heartbeat.';

COMMENT ON COLUMN reveille.workers.started_at IS 'The time at which the worker started.';

COMMENT ON COLUMN reveille.workers.last_seen_at IS 'The time of the last heartbeat.';

COMMENT ON COLUMN reveille.workers.holds_lock IS 'True if the session of the worker''s listener has taken an advisory lock on the worker''s id. While the session holds this lock, the worker lives.';

COMMENT ON COLUMN reveille.workers.stopping IS 'True if the worker only finishes its running jobs and starts no more.';

COMMENT ON COLUMN reveille.workers.stop_requested_at IS 'The time at which the worker was asked to shut down (reveille.stop_worker).';

COMMENT ON COLUMN reveille.workers.stuck_jobs IS 'The worker''s stuck jobs: their handlers were asked to stop five seconds ago or more and still run; null: none. Written at each heartbeat.';

COMMENT ON COLUMN reveille.workers.stuck_since IS 'The times at which the handlers of stuck_jobs were asked to stop, in the same order.';

COMMENT ON COLUMN reveille.workers.backend IS 'The process id of the server''s backend whose lock shows that the worker lives: at first the backend of the session that has registered the worker, then that of the listener''s session. Null: no backend is known, and the lock of any session shows it.';

COMMENT ON COLUMN reveille.workers.applies_ends IS 'True if the worker notes the ends of linked jobs and applies them. A worker of a version before workflows does not; while it lives, no job can be linked.';

CREATE VIEW reveille.known_queues AS
 WITH RECURSIVE waiting AS (
        ( SELECT jobs.queue
           FROM reveille.jobs
          WHERE ((jobs.reserved_at IS NULL) AND (jobs.paused_by IS NULL))
          ORDER BY jobs.queue
         LIMIT 1)
        UNION ALL
         SELECT ( SELECT jobs.queue
                   FROM reveille.jobs
                  WHERE ((jobs.reserved_at IS NULL) AND (jobs.paused_by IS NULL) AND (jobs.queue > waiting.queue))
                  ORDER BY jobs.queue
                 LIMIT 1) AS queue
           FROM waiting
          WHERE (waiting.queue IS NOT NULL)
        ), parked AS (
        ( SELECT jobs.queue
           FROM reveille.jobs
          WHERE (jobs.paused_by IS NOT NULL)
          ORDER BY jobs.queue
         LIMIT 1)
        UNION ALL
         SELECT ( SELECT jobs.queue
                   FROM reveille.jobs
                  WHERE ((jobs.paused_by IS NOT NULL) AND (jobs.queue > parked.queue))
                  ORDER BY jobs.queue
                 LIMIT 1) AS queue
           FROM parked
          WHERE (parked.queue IS NOT NULL)
        ), blocked AS (
        ( SELECT blocked_jobs.queue
           FROM reveille.blocked_jobs
          ORDER BY blocked_jobs.queue
         LIMIT 1)
        UNION ALL
         SELECT ( SELECT blocked_jobs.queue
                   FROM reveille.blocked_jobs
                  WHERE (blocked_jobs.queue > blocked.queue)
                  ORDER BY blocked_jobs.queue
                 LIMIT 1) AS queue
           FROM blocked
          WHERE (blocked.queue IS NOT NULL)
        ), dead AS (
        ( SELECT dead_jobs.queue
           FROM reveille.dead_jobs
          ORDER BY dead_jobs.queue
         LIMIT 1)
        UNION ALL
         SELECT ( SELECT dead_jobs.queue
                   FROM reveille.dead_jobs
                  WHERE (dead_jobs.queue > dead.queue)
                  ORDER BY dead_jobs.queue
                 LIMIT 1) AS queue
           FROM dead
          WHERE (dead.queue IS NOT NULL)
        ), counted AS (
        ( SELECT counters.queue
           FROM reveille.counters
          ORDER BY counters.queue
         LIMIT 1)
        UNION ALL
         SELECT ( SELECT counters.queue
                   FROM reveille.counters
                  WHERE (counters.queue > counted.queue)
                  ORDER BY counters.queue
                 LIMIT 1) AS queue
           FROM counted
          WHERE (counted.queue IS NOT NULL)
        )
 SELECT waiting.queue
   FROM waiting
  WHERE (waiting.queue IS NOT NULL)
UNION
 SELECT parked.queue
   FROM parked
  WHERE (parked.queue IS NOT NULL)
UNION
 SELECT blocked.queue
   FROM blocked
  WHERE (blocked.queue IS NOT NULL)
UNION
 SELECT dead.queue
   FROM dead
  WHERE (dead.queue IS NOT NULL)
UNION
 SELECT held_jobs.queue
   FROM reveille.held_jobs() held_jobs(id, queue, kind, attempt, worker, reserved_at, cancel_requested_at)
UNION
 SELECT queues.name AS queue
   FROM reveille.queues
UNION
 SELECT unnest(workers.queues) AS queue
   FROM reveille.workers
UNION
 SELECT counted.queue
   FROM counted
  WHERE ((counted.queue IN ( SELECT waiting.queue
           FROM waiting)) OR (EXISTS ( SELECT
           FROM reveille.counters
          WHERE ((counters.queue = counted.queue) AND (counters.started_at > (now() - '1 day'::interval))))));

COMMENT ON VIEW reveille.known_queues IS 'Each queue that has jobs, blocked jobs, dead jobs, settings or a worker, or had an ended attempt within a day.';

COMMENT ON COLUMN reveille.known_queues.queue IS 'The queue.';

CREATE TABLE reveille.limits (
    queue text NOT NULL,
    counted_for timestamp with time zone NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='200');

COMMENT ON TABLE reveille.limits IS 'Queues with limits whose running jobs have been counted. A claim from such a queue locks the queue''s row here, so that one worker claims at a time.';

COMMENT ON COLUMN reveille.limits.queue IS 'The queue.';

COMMENT ON COLUMN reveille.limits.counted_for IS 'The queue''s limited_since at the time of the count. While the queue''s limited_since differs from this value, workers claim no job of the queue.';

CREATE TABLE reveille.linked_ends (
    job bigint NOT NULL,
    outcome text NOT NULL,
    result jsonb,
    was_blocked boolean DEFAULT false NOT NULL,
    ended_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    workflow bigint,
    CONSTRAINT outcome_is_known CHECK ((outcome = ANY (ARRAY['completed'::text, 'dead'::text, 'cancelled'::text, 'skipped'::text, 'purged'::text, 'revived'::text]))),
    CONSTRAINT result_of_a_linked_job_is_at_most_1_mib CHECK (((pg_column_size(result) <= 512) OR (octet_length((result)::text) <= 1048576)))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE reveille.linked_ends IS 'The ends of linked jobs that no worker has applied yet to the jobs that wait for them and to their workflows.';

COMMENT ON COLUMN reveille.linked_ends.job IS 'The job.';

COMMENT ON COLUMN reveille.linked_ends.outcome IS 'How the job ended: `completed`, `dead`, `cancelled` or `skipped`; `purged`: the dead job was deleted; `revived`: it waits again.';

COMMENT ON COLUMN reveille.linked_ends.result IS 'The result that the handler returned.';

COMMENT ON COLUMN reveille.linked_ends.was_blocked IS 'True if the job ended without having been in reveille.jobs.';

COMMENT ON COLUMN reveille.linked_ends.ended_at IS 'The time of the end, or of the last try to apply it. The oldest ends are applied first.';

COMMENT ON COLUMN reveille.linked_ends.workflow IS 'The workflow that the job belongs to; null: the job belongs to none.';

CREATE TABLE reveille.passed_over (
    id bigint NOT NULL,
    queue text NOT NULL,
    code text NOT NULL,
    error text NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE reveille.passed_over IS 'Jobs that can neither be claimed nor be made dead jobs. Workers list them here, and claim the other jobs of the queue.';

COMMENT ON COLUMN reveille.passed_over.id IS 'The job''s id.';

COMMENT ON COLUMN reveille.passed_over.queue IS 'The job''s queue.';

COMMENT ON COLUMN reveille.passed_over.code IS 'The SQLSTATE of the error with which a claim of the job fails.';

COMMENT ON COLUMN reveille.passed_over.error IS 'The message of the error with which a claim of the job fails.';

COMMENT ON COLUMN reveille.passed_over.seen_at IS 'The time at which a worker last tried to claim the job.';

CREATE VIEW reveille.passed_over_jobs AS
 SELECT passed_over.id,
    passed_over.queue,
    passed_over.code,
    passed_over.error,
    passed_over.seen_at
   FROM reveille.passed_over
  WHERE ((passed_over.seen_at > (now() - '01:00:00'::interval)) AND (EXISTS ( SELECT
           FROM reveille.jobs
          WHERE ((jobs.id = passed_over.id) AND (jobs.reserved_by IS NULL)))));

COMMENT ON VIEW reveille.passed_over_jobs IS 'Waiting jobs that a worker failed to claim within the last hour.';

COMMENT ON COLUMN reveille.passed_over_jobs.id IS 'The job''s id.';

COMMENT ON COLUMN reveille.passed_over_jobs.queue IS 'The queue.';

COMMENT ON COLUMN reveille.passed_over_jobs.code IS 'The SQLSTATE of the error with which a claim of the job fails.';

COMMENT ON COLUMN reveille.passed_over_jobs.error IS 'The message of the error with which a claim of the job fails.';

COMMENT ON COLUMN reveille.passed_over_jobs.seen_at IS 'The time at which a worker last tried to claim the job.';

CREATE TABLE reveille.pauses (
    id bigint NOT NULL,
    queue text,
    kind text,
    key text,
    paused_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT a_pause_has_a_kind_or_a_key CHECK (((kind IS NOT NULL) OR (key IS NOT NULL))),
    CONSTRAINT key_has_1_to_512_bytes CHECK (((octet_length(key) >= 1) AND (octet_length(key) <= 512))),
    CONSTRAINT kind_has_1_to_128_characters CHECK (((length(kind) >= 1) AND (length(kind) <= 128))),
    CONSTRAINT queue_has_1_to_128_characters CHECK (((length(queue) >= 1) AND (length(queue) <= 128)))
);

COMMENT ON TABLE reveille.pauses IS 'The pauses of kinds and keys: no job that a pause covers starts. A job is covered if its queue, kind and key are those that the pause names. A whole queue is paused by reveille.queues.paused_at.';

COMMENT ON COLUMN reveille.pauses.id IS 'The id.';

COMMENT ON COLUMN reveille.pauses.queue IS 'The queue whose jobs the pause covers; null: all queues.';

COMMENT ON COLUMN reveille.pauses.kind IS 'The kind whose jobs the pause covers; null: all kinds.';

COMMENT ON COLUMN reveille.pauses.key IS 'The key whose jobs the pause covers; null: all keys, and jobs without a key.';

COMMENT ON COLUMN reveille.pauses.paused_at IS 'The time at which the pause began.';

CREATE VIEW reveille.pause_status AS
 WITH RECURSIVE parked AS (
        ( SELECT jobs.queue
           FROM reveille.jobs
          WHERE (jobs.paused_by IS NOT NULL)
          ORDER BY jobs.queue
         LIMIT 1)
        UNION ALL
         SELECT ( SELECT jobs.queue
                   FROM reveille.jobs
                  WHERE ((jobs.paused_by IS NOT NULL) AND (jobs.queue > parked.queue))
                  ORDER BY jobs.queue
                 LIMIT 1) AS queue
           FROM parked
          WHERE (parked.queue IS NOT NULL)
        )
 SELECT pauses.queue,
    pauses.kind,
    pauses.key,
    pauses.paused_at,
    pauses.id,
        CASE
            WHEN (pauses.place <= 100) THEN ( SELECT count(*) AS count
               FROM ( SELECT
                       FROM (( SELECT pauses.queue
                              WHERE (pauses.queue IS NOT NULL)
                            UNION ALL
                             SELECT parked.queue
                               FROM parked
                              WHERE (pauses.queue IS NULL)) paused
                         CROSS JOIN LATERAL ( SELECT
                               FROM reveille.jobs
                              WHERE ((jobs.queue = paused.queue) AND (jobs.paused_by = pauses.id))
                              ORDER BY jobs.queue, jobs.paused_by, jobs.id
                             LIMIT 10000) of_queue)
                     LIMIT 10000) bounded)
            ELSE NULL::bigint
        END AS parked
   FROM ( SELECT pauses_1.id,
            pauses_1.queue,
            pauses_1.kind,
            pauses_1.key,
            pauses_1.paused_at,
            row_number() OVER (ORDER BY pauses_1.paused_at DESC, pauses_1.id DESC) AS place
           FROM reveille.pauses pauses_1) pauses
UNION ALL
 SELECT queues.name AS queue,
    NULL::text AS kind,
    NULL::text AS key,
    queues.paused_at,
    NULL::bigint AS id,
    NULL::bigint AS parked
   FROM reveille.queues
  WHERE (queues.paused_at IS NOT NULL);

COMMENT ON VIEW reveille.pause_status IS 'One row per pause: of a queue, a kind, a key, or a kind and a key.';

COMMENT ON COLUMN reveille.pause_status.queue IS 'The queue; null: the pause covers all queues.';

COMMENT ON COLUMN reveille.pause_status.kind IS 'The kind; null: the pause covers all kinds.';

COMMENT ON COLUMN reveille.pause_status.key IS 'The key; null: the pause covers all keys, and jobs without a key.';

COMMENT ON COLUMN reveille.pause_status.paused_at IS 'The time at which the pause began.';

COMMENT ON COLUMN reveille.pause_status.id IS 'The pause, as in reveille.jobs.paused_by; null: a whole queue is paused.';

COMMENT ON COLUMN reveille.pause_status.parked IS 'The number of jobs that the pause keeps parked, counted up to 10,000. Null: the pause is older than the 100 latest, so it is not counted; or a whole queue is paused, so that no claim of it parks jobs.';

ALTER TABLE reveille.pauses ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reveille.pauses_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reveille.rates (
    queue text NOT NULL,
    key text NOT NULL,
    next_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000');

COMMENT ON TABLE reveille.rates IS 'The present use of the rates, one row per queue or key. A queue or key without a row may start its whole burst.';

COMMENT ON COLUMN reveille.rates.queue IS 'The queue.';

COMMENT ON COLUMN reveille.rates.key IS 'The key; empty for the queue as a whole.';

COMMENT ON COLUMN reveille.rates.next_at IS 'The time at which the next job would start if all jobs had started at an even pace. The next job may start before this time, at most by the length of the burst.';

CREATE VIEW reveille.queue_limits AS
 SELECT queues.name AS queue,
    queues.max_running,
    running.counted AS running,
    queues.max_running_per_key,
    queues.ordered,
    running.keys AS running_keys,
    running.most AS most_running_per_key,
    queues.rate_limit,
    COALESCE(queues.rate_period, '00:00:01'::interval) AS rate_period,
    COALESCE(queues.rate_burst, 1) AS rate_burst,
    queues.rate_per_key,
    rates.next_at AS rate_used_until
   FROM ((reveille.queues
     CROSS JOIN LATERAL ( SELECT (COALESCE(sum(by_key.counted), (0)::numeric))::bigint AS counted,
            count(by_key.key) AS keys,
            COALESCE(max(by_key.counted) FILTER (WHERE (by_key.key IS NOT NULL)), (0)::bigint) AS most
           FROM ( SELECT jobs.key,
                    count(*) AS counted
                   FROM reveille.jobs
                  WHERE ((jobs.queue = queues.name) AND jobs.limited AND (jobs.reserved_at IS NOT NULL))
                  GROUP BY jobs.key) by_key) running)
     LEFT JOIN reveille.rates ON (((rates.queue = queues.name) AND (rates.key = ''::text))))
  WHERE (queues.limited IS NOT NULL);

COMMENT ON VIEW reveille.queue_limits IS 'The queues that have limits or an order, and the present use of the limits.';

COMMENT ON COLUMN reveille.queue_limits.queue IS 'The queue.';

COMMENT ON COLUMN reveille.queue_limits.max_running IS 'The maximum number of running jobs of the queue; null: no limit.';

COMMENT ON COLUMN reveille.queue_limits.running IS 'The number of jobs of the queue that workers hold.';

COMMENT ON COLUMN reveille.queue_limits.max_running_per_key IS 'The maximum number of running jobs with the same key; null: no limit.';

COMMENT ON COLUMN reveille.queue_limits.ordered IS 'True if jobs with the same key run one at a time, in the order of their ids.';

COMMENT ON COLUMN reveille.queue_limits.running_keys IS 'The number of keys that have running jobs.';

COMMENT ON COLUMN reveille.queue_limits.most_running_per_key IS 'The largest number of running jobs with the same key.';

COMMENT ON COLUMN reveille.queue_limits.rate_limit IS 'The maximum number of jobs of the queue that start in each rate_period; null: no limit.';

COMMENT ON COLUMN reveille.queue_limits.rate_period IS 'The period of rate_limit and rate_per_key.';

COMMENT ON COLUMN reveille.queue_limits.rate_burst IS 'The number of jobs that may start at once after a time without starts, for the queue and for each key.';

COMMENT ON COLUMN reveille.queue_limits.rate_per_key IS 'The maximum number of jobs with the same key that start in each rate_period; null: no limit.';

COMMENT ON COLUMN reveille.queue_limits.rate_used_until IS 'The time at which the queue''s next job would start if all jobs had started at an even pace; null or past: the whole burst may start at once.';

CREATE VIEW reveille.queue_stats AS
 WITH known AS MATERIALIZED (
         SELECT known_queues.queue
           FROM reveille.known_queues
        ), exact AS MATERIALIZED (
         SELECT LEAST((10000)::bigint, GREATEST((100)::bigint, (100000 / GREATEST(count(*), (1)::bigint)))) AS jobs
           FROM known known_1
        ), planner AS MATERIALIZED (
         SELECT expected.jobs AS waiting,
            expected.due_share,
            common.queues,
            common.shares,
            common.other_share
           FROM (reveille.expected_waiting() expected(jobs, due_share)
             LEFT JOIN LATERAL ( SELECT ((stats.most_common_vals)::text)::text[] AS queues,
                    stats.most_common_freqs AS shares,
                    (GREATEST((0)::double precision, ((1)::double precision - COALESCE(( SELECT sum(share.share) AS sum
                           FROM unnest(stats.most_common_freqs) share(share)), (0)::real))) / (GREATEST((( SELECT count(*) AS count
                           FROM known known_1) - COALESCE(cardinality(stats.most_common_freqs), 0)), (1)::bigint))::double precision) AS other_share
                   FROM pg_stats stats
                  WHERE (((((stats.schemaname)::text || '.'::text) || (stats.tablename)::text) = 'reveille.jobs'::text) AND (stats.attname = 'queue'::name))) common ON (true))
        )
 SELECT known.queue,
    COALESCE((settings.paused_at IS NOT NULL), false) AS paused,
        CASE
            WHEN (ready.counted <= exact.jobs) THEN ready.counted
            WHEN (delayed.counted <= exact.jobs) THEN GREATEST(ready.counted, ((planned.waiting)::bigint - delayed.counted))
            ELSE GREATEST(ready.counted, ((planned.waiting * planned.due_share))::bigint)
        END AS ready,
        CASE
            WHEN (delayed.counted <= exact.jobs) THEN delayed.counted
            WHEN (ready.counted <= exact.jobs) THEN GREATEST(delayed.counted, ((planned.waiting)::bigint - ready.counted))
            ELSE GREATEST(delayed.counted, ((planned.waiting * ((1)::double precision - planned.due_share)))::bigint)
        END AS delayed,
    COALESCE(((counts.running ->> known.queue))::bigint, (0)::bigint) AS running,
    COALESCE(((counts.dead ->> known.queue))::bigint, (0)::bigint) AS dead,
    ((ready.counted > exact.jobs) OR (delayed.counted > exact.jobs)) AS estimated,
    oldest.ready_age AS oldest_ready_age,
    COALESCE((((counts.recent -> known.queue) ->> 0))::bigint, (0)::bigint) AS completed_last_minute,
    COALESCE((((counts.recent -> known.queue) ->> 1))::bigint, (0)::bigint) AS failed_last_minute,
    parked.counted AS parked,
    blocked.counted AS blocked
   FROM (((((((((( SELECT known_1.queue
           FROM known known_1
          WHERE ((length(known_1.queue) >= 1) AND (length(known_1.queue) <= 128))) known
     CROSS JOIN exact)
     CROSS JOIN ( SELECT ( SELECT jsonb_object_agg(a_queue.queue, a_queue.jobs) AS jsonb_object_agg
                   FROM ( SELECT held_jobs.queue,
                            count(*) AS jobs
                           FROM reveille.held_jobs() held_jobs(id, queue, kind, attempt, worker, reserved_at, cancel_requested_at)
                          GROUP BY held_jobs.queue) a_queue) AS running,
            ( SELECT jsonb_object_agg(a_queue.queue, a_queue.jobs) AS jsonb_object_agg
                   FROM ( SELECT dead_groups.queue,
                            sum(dead_groups.jobs) AS jobs
                           FROM reveille.dead_groups() dead_groups(queue, kind, reason, jobs, first_died_at, last_died_at)
                          GROUP BY dead_groups.queue) a_queue) AS dead,
            ( SELECT jsonb_object_agg(a_queue.queue, jsonb_build_array(a_queue.completed, a_queue.failed)) AS jsonb_object_agg
                   FROM ( SELECT counters.queue,
                            sum(counters.completed) AS completed,
                            sum(counters.failed) AS failed
                           FROM reveille.counters
                          WHERE ((counters.started_at > (now() - '00:01:10'::interval)) AND (counters.worker <> 0))
                          GROUP BY counters.queue) a_queue) AS recent) counts)
     LEFT JOIN reveille.queues settings ON ((settings.name = known.queue)))
     CROSS JOIN LATERAL ( SELECT count(*) AS counted
           FROM ( SELECT
                   FROM (( VALUES ((0)::smallint), ((1)::smallint), ((2)::smallint), ((3)::smallint)) level(priority)
                     CROSS JOIN LATERAL ( SELECT
                           FROM reveille.jobs
                          WHERE ((jobs.queue = known.queue) AND (jobs.priority = level.priority) AND (jobs.reserved_at IS NULL) AND (jobs.paused_by IS NULL) AND (jobs.available_at <= now()))
                          ORDER BY jobs.available_at
                         LIMIT 10001) due)
                 LIMIT ( SELECT (exact_1.jobs + 1)
                           FROM exact exact_1)) bounded) ready)
     CROSS JOIN LATERAL ( SELECT count(*) AS counted
           FROM ( SELECT
                   FROM (( VALUES ((0)::smallint), ((1)::smallint), ((2)::smallint), ((3)::smallint)) level(priority)
                     CROSS JOIN LATERAL ( SELECT
                           FROM reveille.jobs
                          WHERE ((jobs.queue = known.queue) AND (jobs.priority = level.priority) AND (jobs.reserved_at IS NULL) AND (jobs.paused_by IS NULL) AND (jobs.available_at > now()))
                          ORDER BY jobs.available_at
                         LIMIT 10001) later)
                 LIMIT ( SELECT (exact_1.jobs + 1)
                           FROM exact exact_1)) bounded) delayed)
     LEFT JOIN LATERAL ( SELECT (planner.waiting * COALESCE((planner.shares[array_position(planner.queues, known.queue)])::double precision, planner.other_share, (0)::double precision)) AS waiting,
            planner.due_share
           FROM planner
          WHERE ((ready.counted > exact.jobs) OR (delayed.counted > exact.jobs))) planned ON (true))
     CROSS JOIN LATERAL ( SELECT (now() - NULLIF(min(first.available_at), '-infinity'::timestamp with time zone)) AS ready_age
           FROM (( VALUES ((0)::smallint), ((1)::smallint), ((2)::smallint), ((3)::smallint)) level(priority)
             CROSS JOIN LATERAL ( SELECT jobs.available_at
                   FROM reveille.jobs
                  WHERE ((jobs.queue = known.queue) AND (jobs.priority = level.priority) AND (jobs.reserved_at IS NULL) AND (jobs.paused_by IS NULL) AND (jobs.available_at <= now()))
                  ORDER BY jobs.available_at
                 LIMIT 1) first)) oldest)
     CROSS JOIN LATERAL ( SELECT count(*) AS counted
           FROM ( SELECT
                   FROM reveille.jobs
                  WHERE ((jobs.queue = known.queue) AND (jobs.paused_by IS NOT NULL))
                  ORDER BY jobs.queue, jobs.paused_by, jobs.id
                 LIMIT 10000) bounded) parked)
     CROSS JOIN LATERAL ( SELECT count(*) AS counted
           FROM ( SELECT
                   FROM reveille.blocked_jobs
                  WHERE (blocked_jobs.queue = known.queue)
                  ORDER BY blocked_jobs.queue, blocked_jobs.id
                 LIMIT 10000) bounded) blocked);

COMMENT ON VIEW reveille.queue_stats IS 'One row per queue. The counts `ready` and `delayed` are exact up to 10,000; above that they are estimates, and `estimated` is true. With more than 10 queues they are exact up to 100,000 divided by their number. The counts of the last minute cover the last 60 to 70 seconds.';

COMMENT ON COLUMN reveille.queue_stats.queue IS 'The queue.';

COMMENT ON COLUMN reveille.queue_stats.paused IS 'True if the queue is paused.';

COMMENT ON COLUMN reveille.queue_stats.ready IS 'The number of due jobs that wait.';

COMMENT ON COLUMN reveille.queue_stats.delayed IS 'The number of jobs that are not due yet, including retries.';

COMMENT ON COLUMN reveille.queue_stats.running IS 'The number of jobs that workers hold.';

COMMENT ON COLUMN reveille.queue_stats.dead IS 'The number of dead jobs.';

COMMENT ON COLUMN reveille.queue_stats.estimated IS 'True if `ready` or `delayed` is an estimate.';

COMMENT ON COLUMN reveille.queue_stats.oldest_ready_age IS 'The time for which the oldest ready job has been due.';

COMMENT ON COLUMN reveille.queue_stats.completed_last_minute IS 'The number of jobs completed in the last minute.';

COMMENT ON COLUMN reveille.queue_stats.failed_last_minute IS 'The number of attempts that failed in the last minute.';

COMMENT ON COLUMN reveille.queue_stats.parked IS 'The number of parked jobs, counted up to 10,000: due jobs that a pause of their kind or key keeps from starting. They are not counted as `ready` or `delayed`.';

COMMENT ON COLUMN reveille.queue_stats.blocked IS 'The number of blocked jobs, counted up to 10,000: they wait for the ends of other jobs.';

CREATE TABLE reveille.totals (
    queue text NOT NULL,
    completed bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    wait_seconds numeric DEFAULT 0 NOT NULL,
    run_seconds numeric DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE reveille.totals IS 'The counts of all ended attempts of each queue, except the attempts that workers'' rows in reveille.counters still count; see the view reveille.queue_totals.';

COMMENT ON COLUMN reveille.totals.queue IS 'The queue.';

COMMENT ON COLUMN reveille.totals.completed IS 'The number of completed jobs.';

COMMENT ON COLUMN reveille.totals.failed IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.totals.wait_seconds IS 'The sum of the times from the due time to the start. Numeric, since a floating-point sum depends on the order of its terms: it could fall when upkeep sums counters by minute, and a total must never fall.';

COMMENT ON COLUMN reveille.totals.run_seconds IS 'The sum of the run times.';

CREATE VIEW reveille.queue_totals AS
 SELECT parts.queue,
    (sum(parts.completed))::bigint AS completed,
    (sum(parts.failed))::bigint AS failed,
    sum(parts.wait_seconds) AS wait_seconds,
    sum(parts.run_seconds) AS run_seconds
   FROM ( SELECT totals.queue,
            totals.completed,
            totals.failed,
            totals.wait_seconds,
            totals.run_seconds
           FROM reveille.totals
        UNION ALL
         SELECT counters.queue,
            counters.completed,
            counters.failed,
            round((counters.wait_seconds)::numeric, 6) AS round,
            round((counters.run_seconds)::numeric, 6) AS round
           FROM reveille.counters
          WHERE (counters.worker <> 0)) parts
  GROUP BY parts.queue;

COMMENT ON VIEW reveille.queue_totals IS 'One row per queue: the counts of all attempts that ever ended. The counts only grow: a row that upkeep sums by minute or deletes in reveille.counters stays counted.';

COMMENT ON COLUMN reveille.queue_totals.queue IS 'The queue.';

COMMENT ON COLUMN reveille.queue_totals.completed IS 'The number of completed jobs.';

COMMENT ON COLUMN reveille.queue_totals.failed IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.queue_totals.wait_seconds IS 'The sum of the times from the due time to the start.';

COMMENT ON COLUMN reveille.queue_totals.run_seconds IS 'The sum of the run times.';

CREATE VIEW reveille.running_jobs AS
 SELECT held.id,
    held.queue,
    held.kind,
    held.attempt,
    held.worker,
    workers.host,
    (now() -
        CASE
            WHEN isfinite(held.reserved_at) THEN held.reserved_at
            ELSE NULL::timestamp with time zone
        END) AS running_for,
    held.cancel_requested_at,
    workers.stuck_since[array_position(workers.stuck_jobs, held.id)] AS stuck_since
   FROM (reveille.held_jobs() held(id, queue, kind, attempt, worker, reserved_at, cancel_requested_at)
     LEFT JOIN reveille.workers ON ((workers.id = held.worker)));

COMMENT ON VIEW reveille.running_jobs IS 'The jobs that workers hold right now.';

COMMENT ON COLUMN reveille.running_jobs.id IS 'The job.';

COMMENT ON COLUMN reveille.running_jobs.queue IS 'The queue.';

COMMENT ON COLUMN reveille.running_jobs.kind IS 'The kind.';

COMMENT ON COLUMN reveille.running_jobs.attempt IS 'The number of the attempt.';

COMMENT ON COLUMN reveille.running_jobs.worker IS 'The worker that holds the job.';

COMMENT ON COLUMN reveille.running_jobs.host IS 'The host of the worker; null if the worker''s row is gone: a rescue will take the job back.';

COMMENT ON COLUMN reveille.running_jobs.running_for IS 'The time for which the worker has held the job.';

COMMENT ON COLUMN reveille.running_jobs.cancel_requested_at IS 'The time at which reveille.cancel asked the handler to stop.';

COMMENT ON COLUMN reveille.running_jobs.stuck_since IS 'The time at which the handler was asked to stop, by a cancel, its timeout or its worker; null unless the job is stuck.';

CREATE TABLE reveille.schedule_declarations (
    schedule_id bigint NOT NULL,
    worker bigint NOT NULL
);

COMMENT ON TABLE reveille.schedule_declarations IS 'The schedules that live workers declare in their code: one row per schedule and worker.';

COMMENT ON COLUMN reveille.schedule_declarations.schedule_id IS 'The schedule.';

COMMENT ON COLUMN reveille.schedule_declarations.worker IS 'The worker that declares the schedule; deleting its row in reveille.workers deletes this row too.';

CREATE TABLE reveille.schedules (
    id bigint NOT NULL,
    name text NOT NULL,
    cron text,
    every interval,
    time_zone text DEFAULT 'UTC'::text NOT NULL,
    catch_up text DEFAULT 'one'::text NOT NULL,
    kind text NOT NULL,
    payload jsonb DEFAULT '{}'::jsonb NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    priority smallint DEFAULT 2 NOT NULL,
    max_attempts integer DEFAULT 20 NOT NULL,
    timeout interval,
    key text,
    tags text[],
    metadata jsonb,
    counted_from timestamp with time zone DEFAULT now() NOT NULL,
    next_at timestamp with time zone,
    last_at timestamp with time zone,
    paused_at timestamp with time zone,
    declared_at timestamp with time zone,
    error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    through_middleware boolean DEFAULT false NOT NULL,
    CONSTRAINT catch_up_is_skip_one_or_all CHECK ((catch_up = ANY (ARRAY['skip'::text, 'one'::text, 'all'::text]))),
    CONSTRAINT cron_has_1_to_256_characters CHECK (((length(cron) >= 1) AND (length(cron) <= 256))),
    CONSTRAINT cron_is_not_every CHECK ((ltrim(cron) !~~* '@every%'::text)),
    CONSTRAINT cron_or_every_is_set CHECK (((cron IS NULL) <> (every IS NULL))),
    CONSTRAINT every_has_no_months CHECK (((EXTRACT(year FROM every) = (0)::numeric) AND (EXTRACT(month FROM every) = (0)::numeric))),
    CONSTRAINT every_is_a_millisecond_to_100_years CHECK (((every >= '00:00:00.001'::interval) AND (every <= '36500 days'::interval))),
    CONSTRAINT key_has_1_to_512_bytes CHECK (((octet_length(key) >= 1) AND (octet_length(key) <= 512))),
    CONSTRAINT kind_has_1_to_128_characters CHECK (((length(kind) >= 1) AND (length(kind) <= 128))),
    CONSTRAINT max_attempts_is_positive CHECK ((max_attempts > 0)),
    CONSTRAINT metadata_is_an_object CHECK ((jsonb_typeof(metadata) = 'object'::text)),
    CONSTRAINT metadata_is_at_most_256_kib CHECK (((pg_column_size(metadata) <= 512) OR (octet_length((metadata)::text) <= 262144))),
    CONSTRAINT name_has_1_to_128_characters CHECK (((length(name) >= 1) AND (length(name) <= 128))),
    CONSTRAINT payload_is_at_most_8_mib CHECK (((pg_column_size(payload) <= 512) OR (octet_length((payload)::text) <= 8388608))),
    CONSTRAINT priority_is_0_to_3 CHECK (((priority >= 0) AND (priority <= 3))),
    CONSTRAINT queue_has_1_to_128_characters CHECK (((length(queue) >= 1) AND (length(queue) <= 128))),
    CONSTRAINT tags_are_at_most_16_kib CHECK ((octet_length(array_to_string(tags, ''::text)) <= 16384)),
    CONSTRAINT tags_are_at_most_64 CHECK (
CASE
    WHEN (array_ndims(tags) = 1) THEN ((cardinality(tags) <= 64) AND (array_position(tags, NULL::text) IS NULL))
    ELSE NULL::boolean
END),
    CONSTRAINT tags_have_one_dimension CHECK ((array_ndims(tags) = 1)),
    CONSTRAINT time_zone_has_1_to_64_characters CHECK (((length(time_zone) >= 1) AND (length(time_zone) <= 64))),
    CONSTRAINT timeout_is_positive CHECK ((timeout > '00:00:00'::interval)),
    CONSTRAINT times_are_finite CHECK ((isfinite(counted_from) AND isfinite(COALESCE(next_at, counted_from))))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

COMMENT ON TABLE reveille.schedules IS 'Schedules, which enqueue recurring jobs. At each tick, one of the workers enqueues the tick''s job. Workers notice a plain insert or update.';

COMMENT ON COLUMN reveille.schedules.id IS 'The id; the schedule''s jobs have it as schedule_id.';

COMMENT ON COLUMN reveille.schedules.name IS 'The name, 1 to 128 characters.';

COMMENT ON COLUMN reveille.schedules.cron IS 'The cron text that gives the ticks: five fields, or six with seconds first, or `@daily` and the like; read by the workers. Null: `every` is set.';

COMMENT ON COLUMN reveille.schedules.every IS 'The interval between ticks, counted from counted_from; null: `cron` is set.';

COMMENT ON COLUMN reveille.schedules.time_zone IS 'The zone of the cron text, such as Europe/Berlin.';

COMMENT ON COLUMN reveille.schedules.catch_up IS 'The catch-up for ticks that were missed while no worker was running: `skip` (no job), `one` (a single job for all missed ticks), `all` (a job for each missed tick).';

COMMENT ON COLUMN reveille.schedules.kind IS 'The kind of the schedule''s jobs.';

COMMENT ON COLUMN reveille.schedules.payload IS 'The payload of the schedule''s jobs.';

COMMENT ON COLUMN reveille.schedules.queue IS 'The queue of the schedule''s jobs.';

COMMENT ON COLUMN reveille.schedules.priority IS 'The priority of the schedule''s jobs: 0 urgent, 1 high, 2 normal, 3 low.';

COMMENT ON COLUMN reveille.schedules.max_attempts IS 'The number of failures at which one of the schedule''s jobs becomes a dead job.';

COMMENT ON COLUMN reveille.schedules.timeout IS 'The longest run time of one attempt; null: the worker''s setting.';

COMMENT ON COLUMN reveille.schedules.key IS 'The key of the schedule''s jobs: what they belong to, such as a tenant, for limits and order per key.';

COMMENT ON COLUMN reveille.schedules.tags IS 'The tags of the schedule''s jobs.';

COMMENT ON COLUMN reveille.schedules.metadata IS 'The metadata of the schedule''s jobs, to which the schedule''s name and the tick are added.';

COMMENT ON COLUMN reveille.schedules.counted_from IS 'The time after which ticks count: the last time at which the timing was set or the schedule was resumed.';

COMMENT ON COLUMN reveille.schedules.next_at IS 'The next tick; null while a worker has yet to compute it.';

COMMENT ON COLUMN reveille.schedules.last_at IS 'The last tick for which a job was enqueued.';

COMMENT ON COLUMN reveille.schedules.paused_at IS 'The time at which the schedule was paused; it enqueues nothing while paused. Null: it is not paused.';

COMMENT ON COLUMN reveille.schedules.declared_at IS 'The time at which a worker last declared the schedule in its code; null: the schedule is managed by hand.';

COMMENT ON COLUMN reveille.schedules.error IS 'The reason why the next tick cannot be computed: the cron text or the time zone is invalid.';

COMMENT ON COLUMN reveille.schedules.created_at IS 'The time at which the schedule was added.';

COMMENT ON COLUMN reveille.schedules.through_middleware IS 'True if the schedule''s jobs pass through middleware. Then only a worker that declares the schedule fires it.';

CREATE VIEW reveille.schedule_status AS
 SELECT schedules.name,
    COALESCE(schedules.cron, ('every '::text || schedules.every)) AS timing,
    schedules.time_zone,
    schedules.kind,
    schedules.queue,
    schedules.catch_up,
        CASE
            WHEN (schedules.paused_at IS NULL) THEN schedules.next_at
            ELSE NULL::timestamp with time zone
        END AS next_at,
    schedules.last_at,
    (schedules.paused_at IS NOT NULL) AS paused,
    ((schedules.declared_at IS NOT NULL) AND (NOT (EXISTS ( SELECT
           FROM (reveille.schedule_declarations declared
             JOIN reveille.workers ON ((workers.id = declared.worker)))
          WHERE ((declared.schedule_id = schedules.id) AND (workers.last_seen_at > (now() - '00:00:30'::interval))))))) AS stale,
    schedules.error
   FROM reveille.schedules;

COMMENT ON VIEW reveille.schedule_status IS 'One row per schedule.';

COMMENT ON COLUMN reveille.schedule_status.name IS 'The schedule''s name.';

COMMENT ON COLUMN reveille.schedule_status.timing IS 'The cron text; or the word `every` and the interval.';

COMMENT ON COLUMN reveille.schedule_status.time_zone IS 'The zone of the cron text.';

COMMENT ON COLUMN reveille.schedule_status.kind IS 'The kind of the schedule''s jobs.';

COMMENT ON COLUMN reveille.schedule_status.queue IS 'The queue of the schedule''s jobs.';

COMMENT ON COLUMN reveille.schedule_status.catch_up IS 'The catch-up for missed ticks: `skip`, `one` or `all`.';

COMMENT ON COLUMN reveille.schedule_status.next_at IS 'The next tick; null if the schedule is paused or invalid, or no worker has computed it yet.';

COMMENT ON COLUMN reveille.schedule_status.last_at IS 'The last tick for which a job was enqueued.';

COMMENT ON COLUMN reveille.schedule_status.paused IS 'True if the schedule is paused.';

COMMENT ON COLUMN reveille.schedule_status.stale IS 'True if a worker declared the schedule in its code, and no living worker declares it any more. The schedule still fires until it is removed.';

COMMENT ON COLUMN reveille.schedule_status.error IS 'The reason why the next tick cannot be computed.';

ALTER TABLE reveille.schedules ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reveille.schedules_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reveille.schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);

CREATE TABLE reveille.sleepers (
    queue text NOT NULL,
    worker bigint NOT NULL,
    silent boolean DEFAULT false NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='200');

COMMENT ON TABLE reveille.sleepers IS 'The queues on which workers sleep: one row per queue and worker. The bell rings only for these queues.';

COMMENT ON COLUMN reveille.sleepers.queue IS 'The queue on which the worker sleeps.';

COMMENT ON COLUMN reveille.sleepers.worker IS 'The worker; deleting its row in reveille.workers deletes this row too.';

COMMENT ON COLUMN reveille.sleepers.silent IS 'True if the queue''s bell is switched off (reveille.queues.bell), so that enqueuing does not ring for the worker.';

CREATE SEQUENCE reveille.somebody_sleeps
    AS smallint
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    MAXVALUE 1
    CACHE 1;

COMMENT ON SEQUENCE reveille.somebody_sleeps IS '0 if reveille.sleepers is empty: no worker sleeps, and no enqueue needs to ring. 1 if a worker may sleep.';

CREATE VIEW reveille.throughput AS
 SELECT counters.queue,
    counters.started_at AS minute,
    counters.completed,
    counters.failed,
    (counters.wait_seconds / (NULLIF((counters.completed + counters.failed), 0))::double precision) AS mean_wait_seconds,
    counters.max_wait_seconds,
    (counters.run_seconds / (NULLIF((counters.completed + counters.failed), 0))::double precision) AS mean_run_seconds,
    counters.max_run_seconds
   FROM reveille.counters
  WHERE (counters.worker = 0)
UNION ALL
 SELECT counters.queue,
    date_trunc('minute'::text, counters.started_at) AS minute,
    (sum(counters.completed))::bigint AS completed,
    (sum(counters.failed))::bigint AS failed,
    (sum(counters.wait_seconds) / (NULLIF(sum((counters.completed + counters.failed)), (0)::numeric))::double precision) AS mean_wait_seconds,
    max(counters.max_wait_seconds) AS max_wait_seconds,
    (sum(counters.run_seconds) / (NULLIF(sum((counters.completed + counters.failed)), (0)::numeric))::double precision) AS mean_run_seconds,
    max(counters.max_run_seconds) AS max_run_seconds
   FROM reveille.counters
  WHERE (counters.worker <> 0)
  GROUP BY counters.queue, (date_trunc('minute'::text, counters.started_at));

COMMENT ON VIEW reveille.throughput IS 'One row per queue and minute of the last 7 days: the numbers of completed jobs and failed attempts, their wait times (from the due time to the start) and their run times.';

COMMENT ON COLUMN reveille.throughput.queue IS 'The queue.';

COMMENT ON COLUMN reveille.throughput.minute IS 'The start of the minute.';

COMMENT ON COLUMN reveille.throughput.completed IS 'The number of completed jobs.';

COMMENT ON COLUMN reveille.throughput.failed IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.throughput.mean_wait_seconds IS 'The mean time from the due time to the start.';

COMMENT ON COLUMN reveille.throughput.max_wait_seconds IS 'The longest time from the due time to the start.';

COMMENT ON COLUMN reveille.throughput.mean_run_seconds IS 'The mean run time.';

COMMENT ON COLUMN reveille.throughput.max_run_seconds IS 'The longest run time.';

CREATE TABLE reveille.unique_periods (
    kind text NOT NULL,
    unique_key text NOT NULL,
    job_id bigint NOT NULL,
    ends_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE reveille.unique_periods IS 'Unique keys that are held for a period, even if their job ends earlier. Upkeep deletes each row after its period. Delete a row to give up its unique key early.';

COMMENT ON COLUMN reveille.unique_periods.kind IS 'The kind within which the unique key is unique.';

COMMENT ON COLUMN reveille.unique_periods.unique_key IS 'The unique key.';

COMMENT ON COLUMN reveille.unique_periods.job_id IS 'The job that holds the unique key, live or ended.';

COMMENT ON COLUMN reveille.unique_periods.ends_at IS 'The end of the period, which begins at the job''s created_at.';

CREATE VIEW reveille.waiting_jobs AS
 SELECT jobs.id,
    jobs.queue,
    jobs.kind,
    jobs.priority,
    jobs.attempts,
    jobs.failures,
    jobs.max_attempts,
    jobs.available_at,
    jobs.created_at,
    (jobs.available_at <= now()) AS ready
   FROM reveille.jobs
  WHERE ((jobs.reserved_at IS NULL) AND (jobs.paused_by IS NULL));

COMMENT ON VIEW reveille.waiting_jobs IS 'The jobs that wait, ready and delayed, without the parked jobs. Give a query a `limit`. An index has the jobs of each queue and priority in the order of `available_at`.';

COMMENT ON COLUMN reveille.waiting_jobs.id IS 'The job.';

COMMENT ON COLUMN reveille.waiting_jobs.queue IS 'The queue.';

COMMENT ON COLUMN reveille.waiting_jobs.kind IS 'The kind.';

COMMENT ON COLUMN reveille.waiting_jobs.priority IS '0 urgent, 1 high, 2 normal, 3 low; jobs with the lowest number start first.';

COMMENT ON COLUMN reveille.waiting_jobs.attempts IS 'The number of times the job has been reserved.';

COMMENT ON COLUMN reveille.waiting_jobs.failures IS 'The number of failed attempts.';

COMMENT ON COLUMN reveille.waiting_jobs.max_attempts IS 'The number of failures at which the job becomes a dead job.';

COMMENT ON COLUMN reveille.waiting_jobs.available_at IS 'The due time.';

COMMENT ON COLUMN reveille.waiting_jobs.created_at IS 'The start of the transaction that enqueued the job.';

COMMENT ON COLUMN reveille.waiting_jobs.ready IS 'True if the job is due, false if it is delayed.';

CREATE TABLE reveille.waits (
    job bigint NOT NULL,
    event text NOT NULL,
    until timestamp with time zone NOT NULL,
    seen boolean DEFAULT false NOT NULL
);

COMMENT ON TABLE reveille.waits IS 'Jobs that wait for an event. A row comes with the snooze of the job, and goes once the job has recorded that the event came, or did not come in time.';

COMMENT ON COLUMN reveille.waits.job IS 'The job''s id.';

COMMENT ON COLUMN reveille.waits.event IS 'The event that the job waits for.';

COMMENT ON COLUMN reveille.waits.until IS 'The time at which the job stops waiting.';

COMMENT ON COLUMN reveille.waits.seen IS 'True once a pass over events and waits has paired the row with all events that were there.';

CREATE VIEW reveille.worker_status AS
 SELECT workers.id AS worker,
    workers.host,
    workers.pid,
    workers.queues,
    COALESCE(((( SELECT jsonb_object_agg(a_worker.worker, a_worker.jobs) AS jsonb_object_agg
           FROM ( SELECT held_jobs.worker,
                    count(*) AS jobs
                   FROM reveille.held_jobs() held_jobs(id, queue, kind, attempt, worker, reserved_at, cancel_requested_at)
                  GROUP BY held_jobs.worker) a_worker) ->> (workers.id)::text))::bigint, (0)::bigint) AS running,
    workers.slots,
    workers.started_at,
    workers.last_seen_at AS last_seen,
    (workers.last_seen_at > (clock_timestamp() - '00:00:30'::interval)) AS alive,
    (workers.stopping OR (workers.stop_requested_at IS NOT NULL)) AS stopping,
    workers.version,
    COALESCE(cardinality(workers.stuck_jobs), 0) AS stuck,
    workers.queue_slots
   FROM reveille.workers;

COMMENT ON VIEW reveille.worker_status IS 'One row per worker process.';

COMMENT ON COLUMN reveille.worker_status.worker IS 'The worker''s id.';

COMMENT ON COLUMN reveille.worker_status.host IS 'The name of the worker''s host.';

COMMENT ON COLUMN reveille.worker_status.pid IS 'The process id on that host.';

COMMENT ON COLUMN reveille.worker_status.queues IS 'The queues that the worker works.';

COMMENT ON COLUMN reveille.worker_status.running IS 'The number of jobs that the worker holds.';

COMMENT ON COLUMN reveille.worker_status.slots IS 'The number of slots, all queues together.';

COMMENT ON COLUMN reveille.worker_status.started_at IS 'The time at which the worker started.';

COMMENT ON COLUMN reveille.worker_status.last_seen IS 'The time of the last heartbeat.';

COMMENT ON COLUMN reveille.worker_status.alive IS 'True if the last heartbeat is less than 30 seconds old.';

COMMENT ON COLUMN reveille.worker_status.stopping IS 'True if the worker is shutting down, or has been asked to shut down.';

COMMENT ON COLUMN reveille.worker_status.version IS 'The version of Reveille that the worker runs.';

COMMENT ON COLUMN reveille.worker_status.stuck IS 'The number of the worker''s stuck jobs.';

COMMENT ON COLUMN reveille.worker_status.queue_slots IS 'The number of slots of each queue, in the order of queues.';

CREATE VIEW reveille.workflow_job_status AS
 SELECT members.workflow,
    members.name,
    members.job,
        CASE
            WHEN (members.outcome IS NOT NULL) THEN members.outcome
            WHEN (blocked.id IS NOT NULL) THEN 'blocked'::text
            WHEN (live.reserved_at IS NOT NULL) THEN 'running'::text
            WHEN (live.available_at > now()) THEN 'delayed'::text
            WHEN (live.id IS NOT NULL) THEN 'ready'::text
            ELSE 'ended'::text
        END AS state,
    COALESCE(blocked.queue, live.queue) AS queue,
    COALESCE(blocked.kind, live.kind) AS kind,
    live.failures,
    members.ended_at,
    ARRAY( SELECT COALESCE(( SELECT others.name
                   FROM reveille.workflow_jobs others
                  WHERE ((others.job = dependencies.on_job) AND (others.workflow = members.workflow))), (dependencies.on_job)::text) AS "coalesce"
           FROM ( SELECT dependencies_1.on_job,
                    dependencies_1.label
                   FROM reveille.dependencies dependencies_1
                  WHERE (dependencies_1.waiter = members.job)
                  ORDER BY dependencies_1.label
                 LIMIT 100) dependencies
          ORDER BY dependencies.label) AS prerequisites,
    ARRAY( SELECT dependencies.fires_on
           FROM reveille.dependencies
          WHERE (dependencies.waiter = members.job)
          ORDER BY dependencies.label
         LIMIT 100) AS fires_on
   FROM ((reveille.workflow_jobs members
     LEFT JOIN reveille.blocked_jobs blocked ON ((blocked.id = members.job)))
     LEFT JOIN reveille.jobs live ON ((live.id = members.job)));

COMMENT ON VIEW reveille.workflow_job_status IS 'The jobs of workflows, without their results. Give a query a condition on `workflow`.';

COMMENT ON COLUMN reveille.workflow_job_status.workflow IS 'The workflow.';

COMMENT ON COLUMN reveille.workflow_job_status.name IS 'The name of the job within the workflow.';

COMMENT ON COLUMN reveille.workflow_job_status.job IS 'The job.';

COMMENT ON COLUMN reveille.workflow_job_status.state IS '`blocked`, `delayed`, `ready` or `running`; `completed`, `dead`, `cancelled` or `skipped`; `ended`: the job has ended, and no worker has applied its end yet.';

COMMENT ON COLUMN reveille.workflow_job_status.queue IS 'The queue; null once the job has ended.';

COMMENT ON COLUMN reveille.workflow_job_status.kind IS 'The kind; null once the job has ended.';

COMMENT ON COLUMN reveille.workflow_job_status.failures IS 'The number of failed attempts; null: blocked or ended.';

COMMENT ON COLUMN reveille.workflow_job_status.ended_at IS 'The time at which the job ended.';

COMMENT ON COLUMN reveille.workflow_job_status.prerequisites IS 'The names of up to 100 jobs that the job waits for or has waited for; for a job outside the workflow, its id.';

COMMENT ON COLUMN reveille.workflow_job_status.fires_on IS 'The outcome that the job waits for, for each of these: `completed`, `dead`, `cancelled` or `any`.';

CREATE TABLE reveille.workflows (
    id bigint NOT NULL,
    name text NOT NULL,
    unique_key text,
    holds_key boolean DEFAULT false NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    sealed boolean DEFAULT false NOT NULL,
    jobs bigint DEFAULT 0 NOT NULL,
    blocked bigint DEFAULT 0 NOT NULL,
    completed bigint DEFAULT 0 NOT NULL,
    dead bigint DEFAULT 0 NOT NULL,
    cancelled bigint DEFAULT 0 NOT NULL,
    skipped bigint DEFAULT 0 NOT NULL,
    input jsonb DEFAULT '{}'::jsonb NOT NULL,
    result jsonb,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    cancelled_up_to text,
    parent_id bigint,
    schedule_id bigint,
    CONSTRAINT input_is_at_most_1_mib CHECK ((octet_length((input)::text) <= 1048576)),
    CONSTRAINT name_has_1_to_128_characters CHECK (((length(name) >= 1) AND (length(name) <= 128))),
    CONSTRAINT state_is_known CHECK ((state = ANY (ARRAY['running'::text, 'stalled'::text, 'cancelling'::text, 'completed'::text, 'failed'::text, 'cancelled'::text]))),
    CONSTRAINT unique_key_has_1_to_512_bytes CHECK (((octet_length(unique_key) >= 1) AND (octet_length(unique_key) <= 512)))
)
WITH (fillfactor='50');

COMMENT ON TABLE reveille.workflows IS 'Workflows: sets of jobs that wait for each other. A row is kept for 30 days after the workflow has ended.';

COMMENT ON COLUMN reveille.workflows.id IS 'The id.';

COMMENT ON COLUMN reveille.workflows.name IS 'The name; several workflows may have the same.';

COMMENT ON COLUMN reveille.workflows.unique_key IS 'The unique key: until a workflow has ended, no second one of its name and unique key is enqueued.';

COMMENT ON COLUMN reveille.workflows.holds_key IS 'True from the enqueue to the first end, if there is a unique key.';

COMMENT ON COLUMN reveille.workflows.state IS '`running`; `stalled`: dead jobs hold up all others, until they are revived or the workflow is cancelled; `cancelling`; `completed`: no job is dead or was cancelled; `failed`: at least one job is dead, and none waits; `cancelled`.';

COMMENT ON COLUMN reveille.workflows.sealed IS 'True once all jobs are enqueued. Until then, no job starts that waits for others.';

COMMENT ON COLUMN reveille.workflows.jobs IS 'The number of jobs.';

COMMENT ON COLUMN reveille.workflows.blocked IS 'The number of blocked jobs: they wait for the ends of other jobs.';

COMMENT ON COLUMN reveille.workflows.completed IS 'The number of completed jobs.';

COMMENT ON COLUMN reveille.workflows.dead IS 'The number of dead jobs.';

COMMENT ON COLUMN reveille.workflows.cancelled IS 'The number of cancelled jobs.';

COMMENT ON COLUMN reveille.workflows.skipped IS 'The number of skipped jobs: the outcomes that they waited for can no longer come.';

COMMENT ON COLUMN reveille.workflows.input IS 'The input, for all jobs of the workflow: any JSON, at most 1 MiB.';

COMMENT ON COLUMN reveille.workflows.result IS 'The result of the one completed job that no other job waits for; null if several jobs are such.';

COMMENT ON COLUMN reveille.workflows.created_at IS 'The start of the transaction that enqueued the workflow.';

COMMENT ON COLUMN reveille.workflows.finished_at IS 'The time at which the workflow ended; null: it has not ended.';

COMMENT ON COLUMN reveille.workflows.cancelled_up_to IS 'The name of the job up to which a cancel has cancelled the jobs, in the order of their names.';

COMMENT ON COLUMN reveille.workflows.parent_id IS 'The job whose handler enqueued the workflow.';

COMMENT ON COLUMN reveille.workflows.schedule_id IS 'The schedule that started the workflow.';

CREATE VIEW reveille.workflow_status AS
 SELECT workflows.id,
    workflows.name,
    workflows.unique_key,
    workflows.state,
    workflows.jobs,
    (((((workflows.jobs - workflows.blocked) - workflows.completed) - workflows.dead) - workflows.cancelled) - workflows.skipped) AS live,
    workflows.blocked,
    workflows.completed,
    workflows.dead,
    workflows.cancelled,
    workflows.skipped,
    workflows.sealed,
    workflows.created_at,
    workflows.finished_at,
    workflows.parent_id,
    workflows.schedule_id
   FROM reveille.workflows;

COMMENT ON VIEW reveille.workflow_status IS 'One row per workflow, kept for 30 days after its end. Give a query an `order by id desc` and a `limit`.';

COMMENT ON COLUMN reveille.workflow_status.id IS 'The id.';

COMMENT ON COLUMN reveille.workflow_status.name IS 'The name; several workflows may have the same.';

COMMENT ON COLUMN reveille.workflow_status.unique_key IS 'The unique key: until a workflow has ended, no second one of its name and unique key is enqueued.';

COMMENT ON COLUMN reveille.workflow_status.state IS '`running`; `stalled`: dead jobs hold up all others, until they are revived or the workflow is cancelled; `cancelling`; `completed`: no job is dead or was cancelled; `failed`: at least one job is dead, and none waits; `cancelled`.';

COMMENT ON COLUMN reveille.workflow_status.jobs IS 'The number of jobs.';

COMMENT ON COLUMN reveille.workflow_status.live IS 'The number of jobs that wait in their queues or run.';

COMMENT ON COLUMN reveille.workflow_status.blocked IS 'The number of blocked jobs: they wait for the ends of other jobs.';

COMMENT ON COLUMN reveille.workflow_status.completed IS 'The number of completed jobs.';

COMMENT ON COLUMN reveille.workflow_status.dead IS 'The number of dead jobs.';

COMMENT ON COLUMN reveille.workflow_status.cancelled IS 'The number of cancelled jobs.';

COMMENT ON COLUMN reveille.workflow_status.skipped IS 'The number of skipped jobs: the outcomes that they waited for can no longer come.';

COMMENT ON COLUMN reveille.workflow_status.sealed IS 'True once all jobs are enqueued. Until then, no job starts that waits for others.';

COMMENT ON COLUMN reveille.workflow_status.created_at IS 'The start of the transaction that enqueued the workflow.';

COMMENT ON COLUMN reveille.workflow_status.finished_at IS 'The time at which the workflow ended; null: it has not ended.';

COMMENT ON COLUMN reveille.workflow_status.parent_id IS 'The job whose handler enqueued the workflow.';

COMMENT ON COLUMN reveille.workflow_status.schedule_id IS 'The schedule that started the workflow.';

ALTER TABLE reveille.workflows ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reveille.workflows_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY reveille.finished_jobs ATTACH PARTITION reveille.finished_jobs_0 FOR VALUES IN ('0');

ALTER TABLE ONLY reveille.actions
    ADD CONSTRAINT actions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reveille.blocked_jobs
    ADD CONSTRAINT blocked_jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reveille.chores
    ADD CONSTRAINT chores_pkey PRIMARY KEY (name);

ALTER TABLE ONLY reveille.counters
    ADD CONSTRAINT counters_pkey PRIMARY KEY (queue, started_at, worker);

ALTER TABLE ONLY reveille.dead_jobs
    ADD CONSTRAINT dead_jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reveille.dependencies
    ADD CONSTRAINT dependencies_pkey PRIMARY KEY (on_job, waiter);

ALTER TABLE ONLY reveille.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (name);

ALTER TABLE ONLY reveille.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reveille.kind_counters
    ADD CONSTRAINT kind_counters_pkey PRIMARY KEY (queue, kind, started_at);

ALTER TABLE ONLY reveille.limits
    ADD CONSTRAINT limits_pkey PRIMARY KEY (queue);

ALTER TABLE ONLY reveille.linked_ends
    ADD CONSTRAINT linked_ends_pkey PRIMARY KEY (job);

ALTER TABLE ONLY reveille.passed_over
    ADD CONSTRAINT passed_over_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reveille.pauses
    ADD CONSTRAINT pauses_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reveille.queues
    ADD CONSTRAINT queues_pkey PRIMARY KEY (name);

ALTER TABLE ONLY reveille.rates
    ADD CONSTRAINT rates_pkey PRIMARY KEY (queue, key);

ALTER TABLE ONLY reveille.schedule_declarations
    ADD CONSTRAINT schedule_declarations_pkey PRIMARY KEY (schedule_id, worker);

ALTER TABLE ONLY reveille.schedules
    ADD CONSTRAINT schedules_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reveille.schema_history
    ADD CONSTRAINT schema_history_pkey PRIMARY KEY (version);

ALTER TABLE ONLY reveille.sleepers
    ADD CONSTRAINT sleepers_pkey PRIMARY KEY (queue, worker);

ALTER TABLE ONLY reveille.steps
    ADD CONSTRAINT steps_pkey PRIMARY KEY (job, name);

ALTER TABLE ONLY reveille.totals
    ADD CONSTRAINT totals_pkey PRIMARY KEY (queue);

ALTER TABLE ONLY reveille.unique_periods
    ADD CONSTRAINT unique_periods_pkey PRIMARY KEY (kind, unique_key);

ALTER TABLE ONLY reveille.waits
    ADD CONSTRAINT waits_pkey PRIMARY KEY (job, event);

ALTER TABLE ONLY reveille.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reveille.workflow_jobs
    ADD CONSTRAINT workflow_jobs_pkey PRIMARY KEY (job);

ALTER TABLE ONLY reveille.workflows
    ADD CONSTRAINT workflows_pkey PRIMARY KEY (id);

CREATE UNIQUE INDEX actions_by_request ON reveille.actions USING btree (request) WHERE (request IS NOT NULL);

CREATE INDEX actions_by_target ON reveille.actions USING btree (target, id) WHERE (NOT (target ? 'filter'::text));

CREATE INDEX blocked_jobs_by_queue ON reveille.blocked_jobs USING btree (queue, id);

CREATE INDEX blocked_jobs_by_workflow ON reveille.blocked_jobs USING btree (workflow, id) WHERE (workflow IS NOT NULL);

CREATE INDEX counters_by_workers ON reveille.counters USING btree (started_at, queue) WHERE (worker <> 0);

CREATE INDEX counters_started_at ON reveille.counters USING btree (started_at);

CREATE INDEX dead_jobs_by_kind ON reveille.dead_jobs USING btree (queue, kind, reason, finished_at);

CREATE UNIQUE INDEX dependencies_by_label ON reveille.dependencies USING btree (waiter, label);

CREATE INDEX ends_ended_at ON reveille.ends USING btree (ended_at);

CREATE INDEX ends_id ON reveille.ends USING btree (id);

CREATE INDEX events_unseen ON reveille.events USING btree (name) WHERE (NOT seen);

CREATE INDEX events_until ON reveille.events USING btree (until);

CREATE INDEX finished_jobs_id ON ONLY reveille.finished_jobs USING btree (id);

CREATE INDEX finished_jobs_0_id_idx ON reveille.finished_jobs_0 USING btree (id);

CREATE INDEX jobs_claim ON reveille.jobs USING btree (queue, priority, available_at, id) WHERE ((reserved_at IS NULL) AND (paused_by IS NULL));

CREATE INDEX jobs_failing ON reveille.jobs USING btree (id) WHERE (failures > 0);

CREATE INDEX jobs_limited ON reveille.jobs USING btree (queue, key) WHERE (limited AND (reserved_at IS NOT NULL));

CREATE INDEX jobs_order ON reveille.jobs USING btree (queue, key, id) WHERE (key IS NOT NULL);

CREATE INDEX jobs_parked ON reveille.jobs USING btree (queue, paused_by, id) WHERE (paused_by IS NOT NULL);

CREATE INDEX jobs_reserved ON reveille.jobs USING btree (reserved_by) WHERE (reserved_at IS NOT NULL);

CREATE INDEX jobs_turn ON reveille.jobs USING btree (queue, key, priority, available_at, id) WHERE ((reserved_at IS NULL) AND (paused_by IS NULL) AND (key IS NOT NULL));

CREATE UNIQUE INDEX jobs_unique ON reveille.jobs USING btree (kind, unique_key) WHERE (unique_key IS NOT NULL);

CREATE INDEX kind_counters_started_at ON reveille.kind_counters USING btree (started_at);

CREATE INDEX linked_ends_of_no_workflow ON reveille.linked_ends USING btree (ended_at) WHERE (workflow IS NULL);

CREATE INDEX linked_ends_of_workflows ON reveille.linked_ends USING btree (ended_at) WHERE (workflow IS NOT NULL);

CREATE INDEX linked_ends_were_blocked ON reveille.linked_ends USING btree (workflow) WHERE was_blocked;

CREATE UNIQUE INDEX pauses_covered ON reveille.pauses USING btree (COALESCE(queue, ''::text), COALESCE(key, ''::text), COALESCE(kind, ''::text));

CREATE INDEX schedule_declarations_worker ON reveille.schedule_declarations USING btree (worker);

CREATE INDEX schedules_due ON reveille.schedules USING btree (COALESCE(next_at, '-infinity'::timestamp with time zone)) WHERE ((paused_at IS NULL) AND (error IS NULL));

CREATE UNIQUE INDEX schedules_name ON reveille.schedules USING btree (name);

CREATE INDEX unique_periods_ends_at ON reveille.unique_periods USING btree (ends_at);

CREATE INDEX waits_event ON reveille.waits USING btree (event);

CREATE INDEX waits_for_ends ON reveille.waits USING btree (event) WHERE starts_with(event, 'reveille:end:'::text);

CREATE INDEX waits_unseen ON reveille.waits USING btree (job, event) WHERE (NOT seen);

CREATE UNIQUE INDEX workflow_jobs_by_name ON reveille.workflow_jobs USING btree (workflow, name);

CREATE INDEX workflows_by_name ON reveille.workflows USING btree (name, id);

CREATE INDEX workflows_by_state ON reveille.workflows USING btree (state, id);

CREATE INDEX workflows_finished_at ON reveille.workflows USING btree (finished_at) WHERE (finished_at IS NOT NULL);

CREATE INDEX workflows_unfinished ON reveille.workflows USING btree (id) WHERE (finished_at IS NULL);

CREATE UNIQUE INDEX workflows_unique ON reveille.workflows USING btree (name, unique_key) WHERE holds_key;

ALTER INDEX reveille.finished_jobs_id ATTACH PARTITION reveille.finished_jobs_0_id_idx;

CREATE TRIGGER began AFTER INSERT ON reveille.pauses REFERENCING NEW TABLE AS began FOR EACH STATEMENT EXECUTE FUNCTION reveille.pause_began();

CREATE TRIGGER check_changed AFTER UPDATE OF queue, kind, payload, priority, failures, max_attempts, available_at, created_at, key, timeout, tags, metadata, errors ON reveille.jobs FOR EACH ROW EXECUTE FUNCTION reveille.check_changed_job();

CREATE TRIGGER check_inserted AFTER INSERT ON reveille.jobs REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION reveille.check_inserted_jobs();

CREATE TRIGGER check_unclaimed AFTER UPDATE OF attempts, reserved_at, reserved_by, unique_key, unique_until ON reveille.jobs FOR EACH ROW WHEN (((new.attempts < 1) OR (new.attempts > 1000000000))) EXECUTE FUNCTION reveille.check_changed_job();

CREATE TRIGGER count_anew BEFORE UPDATE ON reveille.schedules FOR EACH ROW WHEN (((((new.cron IS DISTINCT FROM old.cron) OR (new.every IS DISTINCT FROM old.every)) OR (new.time_zone IS DISTINCT FROM old.time_zone)) OR ((new.paused_at IS NULL) AND (old.paused_at IS NOT NULL)))) EXECUTE FUNCTION reveille.count_anew();

CREATE TRIGGER ended AFTER DELETE ON reveille.pauses FOR EACH STATEMENT EXECUTE FUNCTION reveille.pause_ended();

CREATE TRIGGER keep_totals AFTER DELETE ON reveille.counters REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION reveille.keep_totals();

CREATE TRIGGER limits_changed AFTER INSERT OR DELETE OR UPDATE OF max_running, max_running_per_key, rate_limit, rate_period, rate_burst, rate_per_key, ordered ON reveille.queues FOR EACH ROW EXECUTE FUNCTION reveille.limits_changed();

CREATE TRIGGER mark BEFORE INSERT ON reveille.sleepers FOR EACH ROW EXECUTE FUNCTION reveille.mark_sleeper();

CREATE CONSTRAINT TRIGGER mark_sleepers AFTER INSERT OR DELETE OR UPDATE OF bell ON reveille.queues DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION reveille.mark_sleepers();

CREATE TRIGGER note_limits BEFORE INSERT OR UPDATE ON reveille.queues FOR EACH ROW EXECUTE FUNCTION reveille.note_limits();

CREATE TRIGGER pass_over_known BEFORE INSERT ON reveille.chores FOR EACH ROW EXECUTE FUNCTION reveille.pass_over_known_chore();

ALTER TABLE reveille.chores ENABLE ALWAYS TRIGGER pass_over_known;

CREATE TRIGGER pass_over_known BEFORE INSERT ON reveille.schema_history FOR EACH ROW EXECUTE FUNCTION reveille.pass_over_known_migration();

ALTER TABLE reveille.schema_history ENABLE ALWAYS TRIGGER pass_over_known;

CREATE TRIGGER ring AFTER INSERT ON reveille.jobs REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT WHEN (reveille.somebody_may_sleep()) EXECUTE FUNCTION reveille.ring_after_insert();

CREATE TRIGGER ring_moved AFTER UPDATE OF available_at, queue ON reveille.jobs FOR EACH ROW WHEN (((new.reserved_at IS NULL) AND (old.reserved_at IS NULL) AND ((new.available_at < old.available_at) OR (new.queue <> old.queue)) AND reveille.somebody_may_sleep())) EXECUTE FUNCTION reveille.ring_after_update();

CREATE TRIGGER tell_of_change AFTER UPDATE ON reveille.schedules FOR EACH ROW WHEN (((COALESCE(new.next_at, '-infinity'::timestamp with time zone) < COALESCE(old.next_at, '-infinity'::timestamp with time zone)) OR (new.counted_from IS DISTINCT FROM old.counted_from) OR ((new.error IS NULL) AND (old.error IS NOT NULL)))) EXECUTE FUNCTION reveille.tell_of_schedules();

CREATE TRIGGER tell_of_new AFTER INSERT ON reveille.schedules FOR EACH ROW EXECUTE FUNCTION reveille.tell_of_schedules();

CREATE TRIGGER unpark_changed_job AFTER UPDATE OF queue, kind, key ON reveille.jobs FOR EACH ROW WHEN (((new.paused_by IS NOT NULL) AND ((new.queue <> old.queue) OR (new.kind <> old.kind) OR (new.key IS DISTINCT FROM old.key)))) EXECUTE FUNCTION reveille.unpark_changed_job();

ALTER TABLE ONLY reveille.schedule_declarations
    ADD CONSTRAINT schedule_declarations_schedule_id_fkey FOREIGN KEY (schedule_id) REFERENCES reveille.schedules(id) ON DELETE CASCADE;

ALTER TABLE ONLY reveille.schedule_declarations
    ADD CONSTRAINT schedule_declarations_worker_fkey FOREIGN KEY (worker) REFERENCES reveille.workers(id) ON DELETE CASCADE;

ALTER TABLE ONLY reveille.sleepers
    ADD CONSTRAINT sleepers_worker_fkey FOREIGN KEY (worker) REFERENCES reveille.workers(id) ON DELETE CASCADE;
