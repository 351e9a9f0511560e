-- Workflows stay quick beside a large one. With the statistics of a large workflow, the planner expected most rows for
-- each job that waits and for each workflow, and read whole indexes for a few rows. Now the planner expects few.
alter table reveille.dependencies
    alter column waiter set (n_distinct = -0.1),
    alter column on_job set (n_distinct = -0.1);
alter table reveille.workflow_jobs alter column workflow set (n_distinct = -0.1);
alter table reveille.blocked_jobs alter column workflow set (n_distinct = -0.1);
analyze reveille.dependencies, reveille.workflow_jobs, reveille.blocked_jobs;

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


-- A function in SQL is planned at each call, which took longer than reading the inputs. A session keeps these plans.
create or replace function reveille.inputs(
    job bigint, after_label text default '', most int default 100, only_label text default null,
    out label text, out name text, out prerequisite bigint, out outcome text, out result jsonb
) returns setof record
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set plan_cache_mode = force_generic_plan
as $$
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
