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

create function reveille.bury_blocked(id bigint, error text) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    fresh bigint;
    message text := error;
    is_awaited boolean;
begin
    if exists (select from reveille.dead_jobs where dead_jobs.id = bury_blocked.id) then
        fresh := reveille.fresh_job_id();
        message := message || format('; its id was %s, which another dead job has', bury_blocked.id);
    end if;
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, key, timeout,
        tags, metadata, errors, parent_id, schedule_id, reason, linked
    )
    select
        coalesce(fresh, blocked_jobs.id), queue, kind, payload, priority, 0, 0, max_attempts, clock_timestamp(),
        created_at, key, timeout, tags, metadata,
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
end
$$;
comment on function reveille.bury_blocked(bigint, text) is
    'Makes a dead job of a blocked job, with a fresh id if another dead job has its id. For reveille.move_blocked.';

create function reveille.says_nothing_of_a_row(code text) returns boolean
    language sql immutable
as $$
    select pg_catalog.left(code, 2) operator(pg_catalog.=) any (array['40', '53', '57', '58'])
        or code operator(pg_catalog.=) '55P03'
$$;
comment on function reveille.says_nothing_of_a_row(text) is
    'True if the error with this SQLSTATE may go away by itself: a deadlock, a missing resource, a lock, a stop of the '
    'server.';

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
        perform reveille.bury_blocked(ids[1], format(
            '%s: %s (SQLSTATE %s)',
            case fate when 'started' then 'cannot be stored in reveille.jobs' else 'cannot be ' || fate end, message,
            code
        ));
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
    'Makes these waiting jobs due now, since an event has come, but for a job that the server refuses to change. Such '
    'a job goes on at the end of its wait. The caller has locked their rows. Returns the number of changed jobs.';
