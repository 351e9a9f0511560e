-- Dependencies and workflows: how linked jobs are enqueued, and how their ends are applied. See
-- docs/design/workflows.md.

create function reveille.dependency_state(fires_on text, on_dead text, outcome text) returns text
    language sql immutable
as $$
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
comment on function reveille.dependency_state(text, text, text) is
    'Returns the state of a dependency after its prerequisite has ended with an outcome. A met or skipped dependency '
    'keeps its state.';

-- Enqueuing linked jobs.

-- This function takes as the caller the role that is set, as reveille.reads_any does.
create function reveille.check_may_enqueue() returns void
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
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
comment on function reveille.check_may_enqueue() is
    'Refuses a caller that may not insert jobs, and refuses linked jobs while a worker lives that does not apply their '
    'ends.';

create function reveille.link_prerequisite(id bigint) returns void
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
            insert into reveille.linked_ends (job, outcome) values (link_prerequisite.id, ended)
            on conflict (job) do update set ended_at = excluded.ended_at;
            perform reveille.tell_of_ends();
            return;
        end if;
    end loop;
    raise exception 'job % is not known: it never existed, or its history is gone', link_prerequisite.id
        using errcode = 'no_data_found', hint = 'The queue''s retention decides how long a finished job is known.';
end
$$;
comment on function reveille.link_prerequisite(bigint) is
    'For a new dependency: locks a job until the caller commits and marks it as linked. If the job has ended, notes '
    'its end once more.';

create function reveille.read_dependencies(jobs jsonb) returns table (
    place bigint, direction text, name text, id bigint, label text, fires_on text, on_dead text, edge jsonb
)
    language sql immutable
    set search_path = pg_catalog, pg_temp
as $$
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
comment on function reveille.read_dependencies(jsonb) is
    'Reads the keys `after` and `before` of an array of jobs: one row per dependency.';

create function reveille.plain_jobs(jobs jsonb) returns jsonb
    language sql immutable
    set search_path = pg_catalog, pg_temp
as $$
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
comment on function reveille.plain_jobs(jsonb) is 'Returns the jobs of a workflow without the keys that link them.';

create function reveille.refusal_of_linked_jobs(workflow bigint, jobs jsonb, max_payload bigint) returns text
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set enable_nestloop = off
    set jit = off
as $$
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
comment on function reveille.refusal_of_linked_jobs(bigint, jsonb, bigint) is
    'Returns what is wrong with new jobs of a workflow, by the name of the job; null if nothing is. If workflow is '
    'null, the jobs belong to none. max_payload is as in reveille.refusal_of_json_jobs.';

create function reveille.cycle_of(jobs jsonb) returns text
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
    set enable_nestloop = off
    set jit = off
as $$
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
comment on function reveille.cycle_of(jobs jsonb) is
    'Returns which of these jobs wait for each other in a circle; null: none.';

create function reveille.wait_in_a_circle(ids bigint[]) returns boolean
    language sql stable
    set search_path = pg_catalog, pg_temp
    set enable_nestloop = on
    set enable_seqscan = off
    set jit = off
as $$
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
comment on function reveille.wait_in_a_circle(bigint[]) is
    'True if a blocked job that is to wait for one of these new jobs would wait for itself.';

-- Stores jobs with their dependencies. The jobs have been checked by reveille.refusal_of_linked_jobs.
create function reveille.store_linked_jobs(workflow bigint, jobs jsonb, schedule_id bigint default null)
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
        insert into reveille.workflow_jobs (job, workflow, name, cleanup)
        select
            ids[given.place], given_workflow, given.job ->> 'name',
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
comment on function reveille.store_linked_jobs(bigint, jsonb, bigint) is
    'Stores checked jobs with their dependencies, in a workflow or (null) in none. Returns their ids, in their order.';

create function reveille.enqueue_after(
    after        bigint[],
    kind         text,
    payload      jsonb       default '{}',
    fires_on     text        default 'completed',
    on_dead      text        default 'hold',
    wait_for     text        default 'all',
    queue        text        default 'default',
    delay        interval    default null,
    available_at timestamptz default null,
    priority     bigint      default 2,
    max_attempts bigint      default null,
    timeout      interval    default null,
    key          text        default null,
    tags         text[]      default null,
    metadata     jsonb       default null,
    parent_id    bigint      default null,
    max_payload  bigint      default null
) returns bigint
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
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
comment on function reveille.enqueue_after(
    bigint[], text, jsonb, text, text, text, text, interval, timestamptz, bigint, bigint, interval, text, text[], jsonb,
    bigint, bigint
) is
    'Enqueues a job in the caller''s transaction that starts once other jobs have ended: `select '
    'reveille.enqueue_after(array[7, 8], ''report'')`. fires_on is the outcome that it waits for: `completed`, `dead`, '
    '`cancelled` or `any`. If that outcome can no longer come, the job is cancelled. But if it waits for `completed` '
    'and the other job is dead, on_dead decides: `hold` waits until that job is revived or purged, `cancel` cancels. '
    'wait_for is `all`, or `first`: one of the jobs is enough. A delay counts from the last end. The other arguments '
    'are those of reveille.enqueue, without the unique key. Returns the id.';

create function reveille.largest_payload() returns bigint
    language sql stable
    set search_path = pg_catalog, pg_temp
as $$
    select coalesce(nullif(current_setting('reveille.max_payload', true), '')::bigint, 1048576)
$$;
comment on function reveille.largest_payload() is
    'Returns the largest payload in bytes that this session may enqueue: the setting reveille.max_payload, or else '
    '1 MiB.';

create function reveille.open_workflow(
    name text, unique_key text default null, input jsonb default '{}', parent_id bigint default null,
    schedule_id bigint default null, out id bigint, out existed boolean
)
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
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
comment on function reveille.open_workflow(text, text, jsonb, bigint, bigint) is
    'Begins a workflow that is filled in parts, by reveille.add_to_workflow. Jobs that wait for others do not start '
    'before reveille.seal_workflow. If a workflow of the name with the unique_key has not ended, `existed` is true, '
    'and `id` is that workflow''s.';

create function reveille.add_to_workflow(workflow bigint, jobs jsonb) returns bigint[]
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
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
comment on function reveille.add_to_workflow(bigint, jsonb) is
    'Adds up to 10,000 jobs to a workflow that has not ended, in the caller''s transaction. The keys of a job are '
    'those of reveille.enqueue_json without the unique key, and `name`, which is required; `after`: the names of the '
    'jobs that it waits for; `before`: the names of new or blocked jobs that are to wait for it too; `fires_on`, '
    '`on_dead` and `wait_for` as in reveille.enqueue_after. An element of `after` or `before` can be an object with '
    'the keys `name`, `label`, `fires_on` and `on_dead`. In a workflow that is not sealed, a job with the key '
    '`after`, even an empty one, starts only after the seal. Returns the ids, in the order of the jobs.';

create function reveille.seal_workflow(workflow bigint) returns boolean
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
comment on function reveille.seal_workflow(bigint) is
    'Ends the filling of a workflow that reveille.open_workflow has begun: jobs that wait for others can start from '
    'the commit on. Further jobs can still be added until the workflow ends. Returns false if it was sealed.';

create function reveille.enqueue_workflow_parts(
    name text, parts jsonb[], unique_key text, input jsonb, parent_id bigint, seal boolean, out id bigint,
    out existed boolean
)
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
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
comment on function reveille.enqueue_workflow_parts(text, jsonb[], text, jsonb, bigint, boolean) is
    'Enqueues a workflow whose jobs come in arrays of up to 10,000 jobs. See reveille.enqueue_workflow.';

create function reveille.enqueue_workflow(
    name text, jobs jsonb, unique_key text default null, input jsonb default '{}', parent_id bigint default null
) returns bigint
    language sql volatile
as $$
    select enqueued.id
    from reveille.enqueue_workflow_parts(
        enqueue_workflow.name, array[enqueue_workflow.jobs], enqueue_workflow.unique_key, enqueue_workflow.input,
        enqueue_workflow.parent_id, true
    ) as enqueued
$$;
comment on function reveille.enqueue_workflow(text, jsonb, text, jsonb, bigint) is
    'Enqueues a workflow of up to 10,000 jobs in the caller''s transaction: `select '
    'reveille.enqueue_workflow(''nightly'', ''[{"name": "extract", "kind": "extract"}, {"name": "load", "kind": '
    '"load", "after": ["extract"]}]'')`. The keys of a job are those of reveille.add_to_workflow. If a workflow of the '
    'name with the unique_key has not ended, no job is added. Returns the id of the workflow, new or not.';

-- Applying the ends of linked jobs.

create function reveille.start_blocked(ids bigint[]) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    one bigint;
    code text;
    message text;
begin
    if cardinality(ids) = 0 or ids is null then
        return;
    end if;
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
        return;
    exception when others then
        get stacked diagnostics code = returned_sqlstate, message = message_text;
        -- What says nothing about the jobs is tried again: deadlocks, missing resources, locks, stops of the server.
        if left(code, 2) in ('40', '53', '57', '58') or code = '55P03' then
            raise;
        end if;
    end;
    if cardinality(ids) > 1 then
        foreach one in array ids loop
            perform reveille.start_blocked(array[one]);
        end loop;
        return;
    end if;
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, key, timeout,
        tags, metadata, errors, parent_id, schedule_id, reason, linked
    )
    select
        id, queue, kind, payload, priority, 0, 0, max_attempts, clock_timestamp(), created_at, key, timeout, tags,
        metadata, jsonb_build_array(jsonb_build_object(
            'at', now(), 'attempt', 0, 'reason', 'undecodable',
            'error', format('cannot be stored in reveille.jobs: %s (SQLSTATE %s)', message, code)
        )),
        parent_id, schedule_id, 'undecodable', true
    from reveille.blocked_jobs
    where blocked_jobs.id = ids[1];
    perform pg_notify('reveille.finished', id || ' dead') from reveille.blocked_jobs
    where blocked_jobs.id = ids[1] and awaited and pg_notification_queue_usage() < 0.9;
    delete from reveille.blocked_jobs where blocked_jobs.id = ids[1];
    perform reveille.note_end(ids[1], 'dead', true);
end
$$;
comment on function reveille.start_blocked(bigint[]) is
    'Moves blocked jobs to reveille.jobs. A job that the table refuses becomes a dead job. The caller has locked the '
    'rows of the jobs, and those of their workflows.';

create function reveille.settle_blocked(ids bigint[]) returns void
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
    perform reveille.start_blocked(starts);
    perform reveille.end_blocked(skips, 'skipped') where skips is not null;
    perform reveille.end_blocked(cancels, 'cancelled') where cancels is not null;
end
$$;
comment on function reveille.settle_blocked(bigint[]) is
    'Starts or skips each of these blocked jobs whose dependencies are decided. The caller has locked their rows.';

create function reveille.update_workflows(ids bigint[]) returns void
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
                when before.sealed and before.dead > 0 and counts.pending = before.blocked then 'stalled'
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
comment on function reveille.update_workflows(bigint[]) is
    'Brings the states of workflows up to date with their counts. The caller has locked their rows.';

-- Each job has at most one row in reveille.linked_ends, and this function locks that row until it commits. So the ends
-- of a job are applied one after the other. The function waits for no lock: whatever another session has locked is left
-- for a later call.
create function reveille.apply_linked_ends(most int default 1000) returns int
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
    decided int;
    applied int;
    cancelled int;
begin
    with of_members as materialized (
        select ends.job, workflows.id as workflow
        from reveille.linked_ends as ends
        join reveille.workflow_jobs as members on members.job = ends.job
        join reveille.workflows on workflows.id = members.workflow
        order by ends.ended_at
        limit most
        -- In this order: otherwise an end would stay locked whose workflow another worker has locked, and that worker
        -- could not apply the end in its next call.
        for update of workflows, ends skip locked
    ), of_others as materialized (
        select ends.job
        from reveille.linked_ends as ends
        where not exists (
            select from reveille.workflow_jobs as members
            join reveille.workflows on workflows.id = members.workflow
            where members.job = ends.job
        )
        order by ends.ended_at
        limit most
        for update skip locked
    )
    select array_agg(ends.job order by ends.job), array_agg(distinct ends.workflow) filter (where workflow is not null)
    into taken, touched
    from (select job, workflow from of_members union all select job, null from of_others) as ends;

    if taken is not null then
        with changed as materialized (
            select
                members.job, members.workflow, members.outcome as before, outcomes.outcome, ends.was_blocked
            from reveille.linked_ends as ends
            join reveille.workflow_jobs as members on members.job = ends.job
            cross join lateral (
                select case ends.outcome when 'revived' then null when 'purged' then 'cancelled' else ends.outcome end
            ) as outcomes (outcome)
            where ends.job = any (taken) and (
                members.outcome is distinct from outcomes.outcome or ends.was_blocked or ends.outcome = 'revived'
            )
        ), noted as (
            update reveille.workflow_jobs as members
            set outcome = changed.outcome,
                result = ends.result,
                ended_at = case when changed.outcome is not null then ends.ended_at end
            from changed
            join reveille.linked_ends as ends on ends.job = changed.job
            where members.job = changed.job
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
            limit most
            for update of blocked_jobs skip locked
        ), decided as (
            -- No other session changes these rows, since this one has locked the ends. They are found by their places,
            -- because a job may wait for a million others, and a million may wait for it.
            update reveille.dependencies
            set state = reveille.dependency_state(fires_on, on_dead, (
                select ends.outcome from reveille.linked_ends as ends where ends.job = dependencies.on_job
            ))
            where dependencies.ctid = any (array(select due.place from due))
        ), lowered as (
            update reveille.blocked_jobs
            set needs = needs - sums.met, chances = chances - sums.decided
            from (
                select
                    waiter, (count(*) filter (where state = 'met'))::int as met,
                    (count(*) filter (where state in ('met', 'skipped')))::int as decided
                from due
                group by waiter
            ) as sums
            where blocked_jobs.id = sums.waiter
            returning blocked_jobs.id
        )
        select (select array_agg(id order by id) from lowered), (select count(*) from due) into waiters, decided;
        perform reveille.settle_blocked(waiters) where waiters is not null;

        with unfinished as materialized (
            select ends.job
            from reveille.linked_ends as ends
            where ends.job = any (taken) and exists (
                select from reveille.dependencies
                join reveille.blocked_jobs on blocked_jobs.id = dependencies.waiter
                where dependencies.on_job = ends.job and dependencies.state in ('open', 'held')
                    and dependencies.state
                        <> reveille.dependency_state(dependencies.fires_on, dependencies.on_dead, ends.outcome)
            )
        ), postponed as (
            -- These ends are looked at after all others, so that they hold up none.
            update reveille.linked_ends set ended_at = clock_timestamp(), was_blocked = false
            where job = any (array(select unfinished.job from unfinished))
        ), gone as (
            delete from reveille.linked_ends
            where job = any (taken) and job <> all (array(select unfinished.job from unfinished))
            returning job, outcome
        ), forgotten as (
            -- The dependencies of a workflow stay until its row goes.
            delete from reveille.dependencies
            using gone
            where dependencies.waiter = gone.job and gone.outcome in ('completed', 'cancelled', 'skipped', 'purged')
                and not exists (select from reveille.workflow_jobs as members where members.job = gone.job)
                and not (
                    dependencies.fires_on = 'dead' and dependencies.state = 'met'
                    and exists (select from reveille.dead_jobs where dead_jobs.id = dependencies.on_job)
                )
        ), settled_deaths as (
            -- A dependency that a dead job has met stays while that job can be revived (reveille.retry), even if the
            -- job that waited has ended.
            delete from reveille.dependencies
            using gone
            where dependencies.on_job = gone.job and gone.outcome in ('completed', 'cancelled', 'skipped', 'purged')
                and dependencies.fires_on = 'dead' and dependencies.state = 'met'
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
comment on function reveille.apply_linked_ends(int) is
    'Applies up to `most` ends of linked jobs: starts or skips the jobs that wait for them, and counts them in their '
    'workflows. Cancels up to `most` jobs of workflows that are being cancelled. Returns the number of changes. Call '
    'this again until it returns 0. For workers.';

create function reveille.linked_work_waits() returns boolean
    language sql stable
    set search_path = pg_catalog, pg_temp
as $$
    select exists (select from reveille.linked_ends)
        or exists (select from reveille.workflows where state = 'cancelling' and finished_at is null)
$$;
comment on function reveille.linked_work_waits() is
    'True if reveille.apply_linked_ends may have something to do. For workers.';

create function reveille.cancel_members(most int) returns int
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
    member record;
    seen int := 0;
    up_to text;
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
        up_to := workflow.cancelled_up_to;
        for member in
            select job, name, cleanup, coalesce(outcome, '') in ('completed', 'cancelled', 'skipped') as has_ended
            from reveille.workflow_jobs
            where workflow_jobs.workflow = workflow.id and name > coalesce(workflow.cancelled_up_to, '')
            order by name
            limit most - seen
        loop
            if not member.has_ended then
                -- If another session has locked the job, a later call goes on from here.
                perform from reveille.blocked_jobs where id = member.job for update skip locked;
                if not found then
                    perform from reveille.jobs where id = member.job for update skip locked;
                    exit when not found and (
                        exists (select from reveille.jobs where id = member.job)
                        or exists (select from reveille.blocked_jobs where id = member.job)
                    );
                end if;
                if member.cleanup then
                    -- The job may have waited for the seal alone.
                    perform reveille.settle_blocked(array[member.job]);
                else
                    perform reveille.cancel(member.job);
                end if;
            end if;
            seen := seen + 1;
            up_to := member.name;
        end loop;
        update reveille.workflows set cancelled_up_to = up_to
        where id = workflow.id and cancelled_up_to is distinct from up_to;
        perform reveille.update_workflows(array[workflow.id]);
        exit when seen >= most;
    end loop;
    return seen;
end
$$;
comment on function reveille.cancel_members(int) is
    'Cancels up to `most` jobs of workflows that are being cancelled, in the order of their names. Returns the number '
    'of jobs that it has passed. For reveille.apply_linked_ends.';

create function reveille.cancel_workflow(id bigint) returns text
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
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
comment on function reveille.cancel_workflow(bigint) is
    'Cancels a workflow: no blocked job of it starts any more, workers cancel its jobs, and the handlers of running '
    'jobs are asked to stop. Jobs that wait for any end or for a cancellation alone still run. Returns the state of '
    'the workflow: `cancelling`, or the state in which it has ended, or `unknown`.';

create function reveille.retry_workflow(id bigint, forced boolean default false)
    returns table (name text, job bigint, answer text)
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
comment on function reveille.retry_workflow(bigint, boolean) is
    'Revives the dead jobs of a workflow. Returns one row per dead job: its name, its id, and `revived`, or why it was '
    'not revived, as in reveille.retry. The jobs that a dead job holds up then wait for it as before.';

create function reveille.inputs(
    job bigint, after_label text default '', most int default 100, only_label text default null,
    out label text, out name text, out prerequisite bigint, out outcome text, out result jsonb
) returns setof record
    language sql stable
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
    limit most
$$;
comment on function reveille.inputs(bigint, text, int, text) is
    'Returns what a job has waited for, in the order of the labels: up to `most` rows with labels after after_label, '
    'or the one with only_label. '
    'outcome is null while the prerequisite has not ended. The result of a job without a workflow is known as long as '
    'its queue''s history.';

-- Views.

create view reveille.workflow_status as
select
    id, name, unique_key, state, jobs, jobs - blocked - completed - dead - cancelled - skipped as live, blocked,
    completed, dead, cancelled, skipped, sealed, created_at, finished_at, parent_id, schedule_id
from reveille.workflows;
comment on view reveille.workflow_status is
    'One row per workflow, kept for 30 days after its end. Give a query an `order by id desc` and a `limit`.';
comment on column reveille.workflow_status.live is 'The number of jobs that wait in their queues or run.';
do $$
declare
    viewed record;
begin
    for viewed in
        select attributes.attname as name, col_description('reveille.workflows'::regclass, originals.attnum) as comment
        from pg_attribute as attributes
        join pg_attribute as originals
            on originals.attrelid = 'reveille.workflows'::regclass and originals.attname = attributes.attname
        where attributes.attrelid = 'reveille.workflow_status'::regclass and attributes.attnum > 0
    loop
        execute format('comment on column reveille.workflow_status.%I is %L', viewed.name, viewed.comment);
    end loop;
end
$$;

create view reveille.workflow_job_status as
select
    members.workflow, members.name, members.job,
    case
        when members.outcome is not null then members.outcome
        when blocked.id is not null then 'blocked'
        when live.reserved_at is not null then 'running'
        when live.available_at > now() then 'delayed'
        when live.id is not null then 'ready'
        else 'ended'
    end as state,
    coalesce(blocked.queue, live.queue) as queue, coalesce(blocked.kind, live.kind) as kind, live.failures,
    members.ended_at,
    array(
        select
            coalesce(
                (
                    select others.name from reveille.workflow_jobs as others
                    where others.job = dependencies.on_job and others.workflow = members.workflow
                ),
                dependencies.on_job::text
            )
        from (
            select on_job, label from reveille.dependencies
            where dependencies.waiter = members.job
            order by label
            limit 100
        ) as dependencies
        order by dependencies.label
    ) as prerequisites,
    array(
        select dependencies.fires_on from reveille.dependencies
        where dependencies.waiter = members.job
        order by dependencies.label
        limit 100
    ) as fires_on
from reveille.workflow_jobs as members
left join reveille.blocked_jobs as blocked on blocked.id = members.job
left join reveille.jobs as live on live.id = members.job;
comment on view reveille.workflow_job_status is
    'The jobs of workflows, without their results. Give a query a condition on `workflow`.';
comment on column reveille.workflow_job_status.workflow is 'The workflow.';
comment on column reveille.workflow_job_status.name is 'The name of the job within the workflow.';
comment on column reveille.workflow_job_status.job is 'The job.';
comment on column reveille.workflow_job_status.state is
    '`blocked`, `delayed`, `ready` or `running`; `completed`, `dead`, `cancelled` or `skipped`; `ended`: the job has '
    'ended, and no worker has applied its end yet.';
comment on column reveille.workflow_job_status.queue is 'The queue; null once the job has ended.';
comment on column reveille.workflow_job_status.kind is 'The kind; null once the job has ended.';
comment on column reveille.workflow_job_status.failures is 'The number of failed attempts; null: blocked or ended.';
comment on column reveille.workflow_job_status.ended_at is 'The time at which the job ended.';
comment on column reveille.workflow_job_status.prerequisites is
    'The names of up to 100 jobs that the job waits for or has waited for; for a job outside the workflow, its id.';
comment on column reveille.workflow_job_status.fires_on is
    'The outcome that the job waits for, for each of these: `completed`, `dead`, `cancelled` or `any`.';

create view reveille.blocked_jobs_overview as
select
    blocked.id, blocked.queue, blocked.kind, blocked.workflow, members.name, blocked.needs,
    array(
        select dependencies.on_job from reveille.dependencies
        where dependencies.waiter = blocked.id and dependencies.state in ('open', 'held')
        order by dependencies.label
        limit 10
    ) as waits_for,
    exists (
        select from reveille.dependencies where dependencies.waiter = blocked.id and dependencies.state = 'held'
    ) as is_held,
    blocked.created_at, blocked.priority, blocked.max_attempts, blocked.key, blocked.tags, blocked.available_at,
    blocked.delay, blocked.timeout, blocked.parent_id, blocked.schedule_id
from reveille.blocked_jobs as blocked
left join reveille.workflow_jobs as members on members.job = blocked.id;
comment on view reveille.blocked_jobs_overview is
    'The blocked jobs, and what they wait for. Give a query a `limit`.';
comment on column reveille.blocked_jobs_overview.id is 'The job.';
comment on column reveille.blocked_jobs_overview.queue is 'The queue.';
comment on column reveille.blocked_jobs_overview.kind is 'The kind.';
comment on column reveille.blocked_jobs_overview.workflow is 'The workflow; null: the job belongs to none.';
comment on column reveille.blocked_jobs_overview.name is 'The name of the job within its workflow.';
comment on column reveille.blocked_jobs_overview.needs is
    'The number of dependencies that must still be met. At 0 the job waits for the seal of its workflow.';
comment on column reveille.blocked_jobs_overview.waits_for is 'Up to ten of the jobs that the job still waits for.';
comment on column reveille.blocked_jobs_overview.is_held is 'True if one of these jobs is dead.';
comment on column reveille.blocked_jobs_overview.created_at is 'The start of the transaction that enqueued the job.';
comment on column reveille.blocked_jobs_overview.priority is '0 urgent, 1 high, 2 normal, 3 low.';
comment on column reveille.blocked_jobs_overview.max_attempts is
    'The number of failures at which the job becomes a dead job.';
comment on column reveille.blocked_jobs_overview.key is 'The key: what the job belongs to, such as a tenant.';
comment on column reveille.blocked_jobs_overview.tags is 'Free labels.';
comment on column reveille.blocked_jobs_overview.available_at is
    'The earliest due time; null: the time at which the job is no longer blocked.';
comment on column reveille.blocked_jobs_overview.delay is
    'The time from the end of the block to the due time; null: none.';
comment on column reveille.blocked_jobs_overview.timeout is
    'The longest run time of one attempt; null: the worker''s setting.';
comment on column reveille.blocked_jobs_overview.parent_id is 'The id of the job whose handler enqueued this job.';
comment on column reveille.blocked_jobs_overview.schedule_id is 'The schedule that enqueued the job.';

insert into reveille.chores (name) values ('workflows'), ('lost ends');
