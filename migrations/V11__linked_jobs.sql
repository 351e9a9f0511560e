-- Linked jobs: jobs that other jobs wait for, that wait or have waited for others, that belong to a workflow, or that
-- have recorded a step. See docs/design/workflows.md.

alter table reveille.jobs add column linked boolean not null default false;
comment on column reveille.jobs.linked is
    'True if the job waits or has waited for other jobs, if others wait for it, if it belongs to a workflow, or if it '
    'has recorded a step. The end of a linked job is noted in reveille.linked_ends.';
alter table reveille.dead_jobs add column linked boolean not null default false;
comment on column reveille.dead_jobs.linked is 'As in reveille.jobs.';
alter table reveille.workers add column applies_ends boolean not null default false;
comment on column reveille.workers.applies_ends is
    'True if the worker notes the ends of linked jobs and applies them. A worker of a version before workflows does '
    'not; while it lives, no job can be linked.';

create table reveille.workflows (
    id              bigint      generated always as identity primary key,
    name            text        not null,
    unique_key      text,
    holds_key       boolean     not null default false,
    state           text        not null default 'running',
    sealed          boolean     not null default false,
    jobs            bigint      not null default 0,
    blocked         bigint      not null default 0,
    completed       bigint      not null default 0,
    dead            bigint      not null default 0,
    cancelled       bigint      not null default 0,
    skipped         bigint      not null default 0,
    input           jsonb       not null default '{}',
    result          jsonb,
    created_at      timestamptz not null default now(),
    finished_at     timestamptz,
    cancelled_up_to text,
    parent_id       bigint,
    schedule_id     bigint,
    constraint name_has_1_to_128_characters check (length(name) between 1 and 128),
    constraint unique_key_has_1_to_512_bytes check (octet_length(unique_key) between 1 and 512),
    constraint state_is_known check (
        state in ('running', 'stalled', 'cancelling', 'completed', 'failed', 'cancelled')
    ),
    constraint input_is_at_most_1_mib check (octet_length(input::text) <= 1048576)
) with (fillfactor = 50);
create unique index workflows_unique on reveille.workflows (name, unique_key) where holds_key;
create index workflows_finished_at on reveille.workflows (finished_at) where finished_at is not null;
create index workflows_unfinished on reveille.workflows (id) where finished_at is null;
create index workflows_by_name on reveille.workflows (name, id);
create index workflows_by_state on reveille.workflows (state, id);
comment on table reveille.workflows is
    'Workflows: sets of jobs that wait for each other. A row is kept for 30 days after the workflow has ended.';
comment on column reveille.workflows.id is 'The id.';
comment on column reveille.workflows.name is 'The name; several workflows may have the same.';
comment on column reveille.workflows.unique_key is
    'The unique key: until a workflow has ended, no second one of its name and unique key is enqueued.';
comment on column reveille.workflows.holds_key is 'True from the enqueue to the first end, if there is a unique key.';
comment on column reveille.workflows.state is
    '`running`; `stalled`: dead jobs hold up all others, until they are revived or the workflow is cancelled; '
    '`cancelling`; `completed`: no job is dead or was cancelled; `failed`: at least one job is dead, and none waits; '
    '`cancelled`.';
comment on column reveille.workflows.sealed is
    'True once all jobs are enqueued. Until then, no job starts that waits for others.';
comment on column reveille.workflows.jobs is 'The number of jobs.';
comment on column reveille.workflows.blocked is 'The number of blocked jobs: they wait for the ends of other jobs.';
comment on column reveille.workflows.completed is 'The number of completed jobs.';
comment on column reveille.workflows.dead is 'The number of dead jobs.';
comment on column reveille.workflows.cancelled is 'The number of cancelled jobs.';
comment on column reveille.workflows.skipped is
    'The number of skipped jobs: the outcomes that they waited for can no longer come.';
comment on column reveille.workflows.input is 'The input, for all jobs of the workflow: any JSON, at most 1 MiB.';
comment on column reveille.workflows.result is
    'The result of the one completed job that no other job waits for; null if several jobs are such.';
comment on column reveille.workflows.created_at is 'The start of the transaction that enqueued the workflow.';
comment on column reveille.workflows.finished_at is 'The time at which the workflow ended; null: it has not ended.';
comment on column reveille.workflows.cancelled_up_to is
    'The name of the job up to which a cancel has cancelled the jobs, in the order of their names.';
comment on column reveille.workflows.parent_id is 'The job whose handler enqueued the workflow.';
comment on column reveille.workflows.schedule_id is 'The schedule that started the workflow.';

create table reveille.workflow_jobs (
    job      bigint  primary key,
    workflow bigint  not null,
    name     text    not null,
    cleanup  boolean not null default false,
    outcome  text,
    result   jsonb,
    ended_at timestamptz,
    constraint outcome_is_known check (outcome in ('completed', 'dead', 'cancelled', 'skipped'))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
create unique index workflow_jobs_by_name on reveille.workflow_jobs (workflow, name);
comment on table reveille.workflow_jobs is
    'The jobs of workflows, one row each from the enqueue to the removal of the workflow. Their results are kept here, '
    'whatever the retention of their queues.';
comment on column reveille.workflow_jobs.job is 'The job.';
comment on column reveille.workflow_jobs.workflow is 'The workflow.';
comment on column reveille.workflow_jobs.name is 'The name of the job within the workflow.';
comment on column reveille.workflow_jobs.cleanup is
    'True if the job waits for others, and neither for completed nor for dead ones alone: a cancel of the workflow '
    'leaves it.';
comment on column reveille.workflow_jobs.outcome is
    '`completed`, `dead`, `cancelled` or `skipped`; null: the job has not ended.';
comment on column reveille.workflow_jobs.result is 'The result that the handler returned, at most 1 MiB.';
comment on column reveille.workflow_jobs.ended_at is 'The time at which the job ended.';

create table reveille.blocked_jobs (
    id           bigint      primary key,
    queue        text        not null,
    kind         text        not null,
    payload      jsonb       not null,
    priority     smallint    not null,
    max_attempts int         not null,
    needs        int         not null,
    chances      int         not null,
    needs_one    boolean     not null default false,
    workflow     bigint,
    cleanup      boolean     not null default false,
    available_at timestamptz,
    delay        interval,
    created_at   timestamptz not null default now(),
    key          text,
    timeout      interval,
    tags         text[],
    metadata     jsonb,
    parent_id    bigint,
    schedule_id  bigint,
    awaited      boolean     not null default false
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
create index blocked_jobs_by_workflow on reveille.blocked_jobs (workflow, id) where workflow is not null;
create index blocked_jobs_by_queue on reveille.blocked_jobs (queue, id);
comment on table reveille.blocked_jobs is
    'Blocked jobs: jobs that have never started, since they wait for the ends of other jobs. A job keeps its id when '
    'it moves to reveille.jobs.';
comment on column reveille.blocked_jobs.id is 'The id.';
comment on column reveille.blocked_jobs.queue is 'The queue.';
comment on column reveille.blocked_jobs.kind is 'The kind.';
comment on column reveille.blocked_jobs.payload is 'The handler''s input.';
comment on column reveille.blocked_jobs.priority is '0 urgent, 1 high, 2 normal, 3 low.';
comment on column reveille.blocked_jobs.max_attempts is 'The number of failures at which the job becomes a dead job.';
comment on column reveille.blocked_jobs.needs is
    'The number of dependencies that must still be met. At 0 the job moves to reveille.jobs, if its workflow is '
    'sealed.';
comment on column reveille.blocked_jobs.chances is
    'The number of dependencies that can still be met. The job is skipped once this number is below `needs`.';
comment on column reveille.blocked_jobs.needs_one is 'True if one met dependency is enough.';
comment on column reveille.blocked_jobs.workflow is 'The workflow; null: the job belongs to none.';
comment on column reveille.blocked_jobs.cleanup is 'As in reveille.workflow_jobs.';
comment on column reveille.blocked_jobs.available_at is 'The earliest due time; null: the time of the move.';
comment on column reveille.blocked_jobs.delay is 'The time from the move to the due time; null: none.';
comment on column reveille.blocked_jobs.created_at is 'The start of the transaction that enqueued the job.';
comment on column reveille.blocked_jobs.key is 'The key: what the job belongs to, such as a tenant.';
comment on column reveille.blocked_jobs.timeout is 'The longest run time of one attempt; null: the worker''s setting.';
comment on column reveille.blocked_jobs.tags is 'Free labels.';
comment on column reveille.blocked_jobs.metadata is 'Free data about the job.';
comment on column reveille.blocked_jobs.parent_id is 'The id of the job whose handler enqueued this job.';
comment on column reveille.blocked_jobs.schedule_id is 'The schedule that enqueued the job.';
comment on column reveille.blocked_jobs.awaited is 'True if a program awaits the job.';

create table reveille.dependencies (
    waiter   bigint not null,
    on_job   bigint not null,
    label    text   not null,
    fires_on text   not null,
    on_dead  text   not null default 'hold',
    state    text   not null default 'open',
    primary key (on_job, waiter),
    constraint fires_on_is_known check (fires_on in ('completed', 'dead', 'cancelled', 'any')),
    constraint on_dead_is_known check (on_dead in ('hold', 'cancel')),
    constraint state_is_known check (state in ('open', 'met', 'held', 'skipped'))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
create unique index dependencies_by_label on reveille.dependencies (waiter, label);
comment on table reveille.dependencies is
    'Dependencies: which job waits for which, and for which outcome. Those of a workflow are kept as long as its row, '
    'all others until the waiting job has completed or was cancelled.';
comment on column reveille.dependencies.waiter is 'The job that waits.';
comment on column reveille.dependencies.on_job is 'The prerequisite: the job that is waited for.';
comment on column reveille.dependencies.label is 'The name under which the waiting job reads the result of the other.';
comment on column reveille.dependencies.fires_on is
    'The outcome that meets the dependency: `completed`, `dead`, `cancelled` or `any`. Skipped jobs count as '
    'cancelled.';
comment on column reveille.dependencies.on_dead is
    'What a dead prerequisite does to a dependency on `completed`: `hold`: it waits until that job is revived or '
    'purged; `cancel`: it is skipped.';
comment on column reveille.dependencies.state is
    '`open`: the prerequisite has not ended; `met`; `held`: the prerequisite is dead; `skipped`: it can no longer be '
    'met.';

create table reveille.linked_ends (
    job         bigint      primary key,
    outcome     text        not null,
    result      jsonb,
    was_blocked boolean     not null default false,
    ended_at    timestamptz not null default clock_timestamp(),
    constraint outcome_is_known check (
        outcome in ('completed', 'dead', 'cancelled', 'skipped', 'purged', 'revived')
    ),
    constraint result_of_a_linked_job_is_at_most_1_mib check (
        pg_column_size(result) <= 512 or octet_length(result::text) <= 1048576
    )
) with (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);
create index linked_ends_ended_at on reveille.linked_ends (ended_at);
comment on table reveille.linked_ends is
    'The ends of linked jobs that no worker has applied yet to the jobs that wait for them and to their workflows.';
comment on column reveille.linked_ends.job is 'The job.';
comment on column reveille.linked_ends.outcome is
    'How the job ended: `completed`, `dead`, `cancelled` or `skipped`; `purged`: the dead job was deleted; `revived`: '
    'it waits again.';
comment on column reveille.linked_ends.result is 'The result that the handler returned.';
comment on column reveille.linked_ends.was_blocked is 'True if the job ended without having been in reveille.jobs.';
comment on column reveille.linked_ends.ended_at is
    'The time of the end, or of the last try to apply it. The oldest ends are applied first.';

-- This function is called by statements that end jobs, in a later part of the same statement or transaction.
create function reveille.note_end(job bigint, outcome text, was_blocked boolean default false) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    insert into reveille.linked_ends as ends (job, outcome, was_blocked)
    values (note_end.job, note_end.outcome, note_end.was_blocked)
    on conflict (job) do update
    set outcome = excluded.outcome, result = excluded.result, was_blocked = ends.was_blocked or excluded.was_blocked,
        ended_at = excluded.ended_at;
    perform reveille.tell_of_ends();
end
$$;
comment on function reveille.note_end(bigint, text, boolean) is
    'Notes the end of a linked job in reveille.linked_ends, and notifies the workers.';

create function reveille.tell_of_ends() returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- If no notification comes, the workers' next heartbeats find the ends.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.linked', '');
    end if;
end
$$;
comment on function reveille.tell_of_ends() is 'Notifies the workers that ends of linked jobs are to be applied.';

create function reveille.end_blocked(ids bigint[], outcome text) returns int
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
        insert into reveille.linked_ends (job, outcome, was_blocked)
        select id, end_blocked.outcome, true from ended
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
comment on function reveille.end_blocked(bigint[], text) is
    'Ends blocked jobs as `cancelled` or `skipped`. Returns the number of jobs that were blocked.';

-- The functions of V4__functions.sql that end, revive or look for jobs, with what they do for linked jobs.

create or replace function reveille.cancel(id bigint) returns text
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    job reveille.jobs;
begin
    if reveille.end_blocked(array[cancel.id], 'cancelled') > 0 then
        return 'cancelled';
    end if;
    select * into job from reveille.jobs where jobs.id = cancel.id for update;
    if found and job.reserved_at is not null then
        update reveille.jobs
        set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
        where jobs.id = cancel.id;
        -- The worker confirms the notification in the table. If no notification comes, the worker's next heartbeat
        -- finds the request.
        if pg_notification_queue_usage() < 0.9 then
            perform pg_notify('reveille.cancel', cancel.id::text);
        end if;
        return 'requested';
    elsif found then
        delete from reveille.jobs where jobs.id = cancel.id;
        if not exists (select from reveille.queues where name = job.queue and retention = interval '0') then
            insert into reveille.finished_jobs (
                day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
                key, tags, metadata, errors, progress, parent_id, schedule_id, outcome
            )
            values (
                extract(epoch from now())::bigint / 86400 % 32, job.id, job.queue, job.kind, job.payload, job.priority,
                job.attempts, job.failures, job.max_attempts, job.available_at, job.created_at,
                job.key, job.tags, job.metadata, job.errors, job.progress, job.parent_id, job.schedule_id, 'cancelled'
            );
        elsif job.awaited then
            insert into reveille.ends (id, outcome, errors) values (job.id, 'cancelled', job.errors);
        end if;
        if job.awaited and pg_notification_queue_usage() < 0.9 then
            perform pg_notify('reveille.finished', cancel.id || ' cancelled');
        end if;
        if job.linked then
            perform reveille.note_end(cancel.id, 'cancelled');
        end if;
        -- In an ordered queue, the next job with the same key may start now.
        perform reveille.ring(array[job.queue]) from reveille.queues where name = job.queue and limited = 'key';
        return 'cancelled';
    end if;
    return case
        when exists (select from reveille.dead_jobs where dead_jobs.id = cancel.id) then 'dead'
        when exists (select from reveille.finished_jobs where finished_jobs.id = cancel.id) then 'finished'
        else 'unknown'
    end;
end
$$;
comment on function reveille.cancel(bigint) is
    'Cancels a job. Returns `cancelled` (the job was waiting or blocked, and has now ended), `requested` (the job is '
    'running, and its handler is asked to stop), or the reason why nothing was cancelled: `finished`, `dead` or '
    '`unknown`.';

create or replace function reveille.await(
    id bigint, out state text, out reason text, out result jsonb, out errors jsonb
)
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
comment on function reveille.await(bigint) is
    'Returns the state of a job: `live`, `completed` (with its result), `cancelled`, `dead` (with the reason) or '
    '`unknown`. If the job is live, its end will be notified on the channel reveille.finished, as the job''s id and '
    '`completed`, `cancelled` or `dead`. Listen on the channel first, then call this function. Call it again after a '
    'notification, since any session can send one.';

create or replace function reveille.complete_in(
    id bigint, worker bigint, attempt int, reserved_at timestamptz, run_seconds double precision, out transaction text
)
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
comment on function reveille.complete_in(bigint, bigint, int, timestamptz, double precision) is
    'Completes a job in the caller''s transaction, fenced by the job''s reservation, and moves the job to the history, '
    'unless its queue keeps none. Returns the transaction''s id; null if the reservation no longer stands. Does not '
    'update reveille.counters, because other sessions would have to wait for the counters'' rows until the transaction '
    'ends. The worker counts the job once the transaction has ended. For workers.';

create or replace function reveille.bury_unclaimed(id bigint, code text, error text, whole boolean) returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
comment on function reveille.bury_unclaimed(bigint, text, text, boolean) is
    'Makes a dead job of a job that cannot be claimed. Returns true if this succeeds. For reveille.isolate_job.';

create or replace function reveille.pass_given_ids() returns bigint
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
comment on function reveille.pass_given_ids() is
    'Moves the sequence of job ids past all ids in use, if some are above the sequence''s value, as after a restore. '
    'Ids from 2^62 on do not count. Returns the sequence''s new value; null if the sequence was not moved. Upkeep '
    'calls this function.';

drop function reveille.retry(bigint);
create function reveille.retry(id bigint, forced boolean default false) returns text
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
comment on function reveille.retry(bigint, boolean) is
    'Makes a job due now. Returns `due` (the job was waiting), `revived` (the job was dead, and its failures are set '
    'to zero), or the reason why nothing was changed: `running`, `blocked` (the job waits for others), `compensated` '
    '(the job is dead, and a job that waited for its death was started), `finished` or `unknown`. `forced` revives '
    'even a compensated job.';
