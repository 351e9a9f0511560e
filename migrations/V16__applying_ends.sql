-- Applying the ends of linked jobs in fewer and larger steps. See docs/design/workflows.md.

alter table reveille.linked_ends add column workflow bigint;
comment on column reveille.linked_ends.workflow is
    'The workflow that the job belongs to; null: the job belongs to none.';
update reveille.linked_ends as ends
set workflow = (select members.workflow from reveille.workflow_jobs as members where members.job = ends.job);
drop index reveille.linked_ends_ended_at;
create index linked_ends_of_workflows on reveille.linked_ends (ended_at) where workflow is not null;
create index linked_ends_of_no_workflow on reveille.linked_ends (ended_at) where workflow is null;
create index linked_ends_were_blocked on reveille.linked_ends (workflow) where was_blocked;

-- Each row is updated once in its life. With room for the new version in its page, no index is touched.
alter table reveille.workflow_jobs set (fillfactor = 50);
alter table reveille.dependencies set (fillfactor = 50);

create or replace function reveille.apply_linked_ends(most int default 1000) returns int
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_bitmapscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
    set jit = off
as $$
#variable_conflict use_column
declare
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
    update reveille.linked_ends as ends
    set workflow = members.workflow
    from reveille.workflow_jobs as members
    join reveille.workflows on workflows.id = members.workflow
    where members.job = ends.job and ends.job = any (array(
        select first.job from reveille.linked_ends as first
        where first.workflow is null
        order by first.ended_at
        limit most
        for update skip locked
    ));

    with of_members as materialized (
        select ends.job, ends.workflow
        from reveille.linked_ends as ends
        join reveille.workflows on workflows.id = ends.workflow
        where ends.workflow is not null
        order by ends.ended_at
        limit most
        -- In this order: otherwise an end would stay locked whose workflow another worker has locked, and that worker
        -- could not apply the end in its next call.
        for update of workflows, ends skip locked
    ), of_others as materialized (
        select ends.job
        from reveille.linked_ends as ends
        where ends.workflow is null
        order by ends.ended_at
        limit most
        for update skip locked
    )
    select array_agg(ends.job order by ends.job), array_agg(distinct ends.workflow) filter (where workflow is not null)
    into taken, touched
    from (select job, workflow from of_members union all select job, null from of_others) as ends;

    if taken is not null then
        -- No other session changes the rows of these members and of the dependencies on these jobs, since this session
        -- has locked the workflows and the ends. So the rows are found again by their places.
        with changed as materialized (
            select
                members.ctid as place, members.workflow, members.outcome as before, outcomes.outcome, ends.result,
                ends.was_blocked, ends.ended_at
            from reveille.linked_ends as ends
            join reveille.workflow_jobs as members on members.job = ends.job
            cross join lateral (
                select case ends.outcome when 'revived' then null when 'purged' then 'cancelled' else ends.outcome end
            ) as outcomes (outcome)
            where ends.job = any (taken) and ends.workflow is not null and (
                members.outcome is distinct from outcomes.outcome or ends.was_blocked or ends.outcome = 'revived'
            )
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
            select
                dependencies.waiter, dependencies.ctid as place,
                reveille.dependency_state(dependencies.fires_on, dependencies.on_dead, ends.outcome) as state
            from reveille.linked_ends as ends
            join reveille.dependencies on dependencies.on_job = ends.job
            join reveille.blocked_jobs on blocked_jobs.id = dependencies.waiter
            where ends.job = any (taken) and dependencies.state in ('open', 'held')
                and dependencies.state
                    <> reveille.dependency_state(dependencies.fires_on, dependencies.on_dead, ends.outcome)
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
            delete from reveille.linked_ends where job = any (taken) returning job, outcome, workflow
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

create function reveille.cancel_live(ids bigint[]) returns int
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
comment on function reveille.cancel_live(bigint[]) is
    'Cancels the waiting ones of these live jobs, and asks the handlers of the running ones to stop. The caller has '
    'locked the rows of the jobs. Returns their number.';

create or replace function reveille.cancel(id bigint) returns text
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
        perform reveille.end_blocked(array(select unnest(blocked) except select unnest(cleanup)), 'cancelled');
        perform reveille.cancel_live(array(select unnest(live) except select unnest(cleanup)));
        seen := seen + passed;
        update reveille.workflows set cancelled_up_to = coalesce(up_to, cancelled_up_to) where id = workflow.id;
        perform reveille.update_workflows(array[workflow.id]);
        exit when seen >= most;
    end loop;
    return seen;
end
$$;

create or replace function reveille.note_end(job bigint, outcome text, was_blocked boolean default false) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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

create or replace function reveille.end_blocked(ids bigint[], outcome text) returns int
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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

create or replace function reveille.link_prerequisite(id bigint) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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

create or replace function reveille.update_workflows(ids bigint[]) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
