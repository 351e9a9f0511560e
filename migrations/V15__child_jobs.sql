-- Jobs that a handler runs and waits for. See docs/features/steps.md.

-- The names of these events have a colon: a dot would make the name of the schema of what stands before it.
alter table reveille.events drop constraint payload_is_at_most_8_kib;
alter table reveille.events add constraint payload_is_at_most_8_kib check (
    octet_length(payload::text) <= 8192 or starts_with(name, 'reveille:end:')
);
comment on column reveille.events.payload is
    'The event''s payload: any JSON, at most 8 KiB of text. The end of a job that a handler runs has more: its result.';
-- This index has the waits for the ends of jobs. Most ends are waited for by no handler.
create index waits_for_ends on reveille.waits (event) where starts_with(event, 'reveille:end:');

create or replace function reveille.emit(event text, payload jsonb default 'null') returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    if starts_with(emit.event, 'reveille:') then
        raise exception 'names of events that begin with "reveille:" are reserved'
            using errcode = 'invalid_parameter_value', hint = 'Give the event another name.';
    end if;
    insert into reveille.events (name, payload) values (emit.event, coalesce(emit.payload, 'null'))
    on conflict do nothing;
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

create function reveille.run_child(
    parent bigint, worker bigint, attempt int, reserved_at timestamptz, step text, job jsonb
)
    returns table (kind text, value jsonb, outcome text, seconds double precision, failures int)
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
comment on function reveille.run_child(bigint, bigint, int, timestamptz, text, jsonb) is
    'Enqueues a job, as reveille.enqueue_json does, and records its id as a step of the job that waits for it, if the '
    'reservation of that job stands. A step that is recorded already stays as it is, and no job is enqueued. Returns '
    'the step; no row if the reservation does not stand. For workers.';

create function reveille.emit_ends(ended bigint[]) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
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
comment on function reveille.emit_ends(bigint[]) is
    'Emits the ends of these jobs as events, if handlers wait for them. The first end of a job counts. For '
    'reveille.apply_linked_ends.';
