-- Durable steps of jobs, and events that jobs wait for.

create table reveille.steps (
    job         bigint      not null,
    name        text        not null,
    kind        text        not null default 'step',
    value       jsonb,
    until       timestamptz,
    outcome     text,
    attempt     int         not null,
    reserved_at timestamptz not null,
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (job, name),
    constraint name_has_1_to_512_bytes check (octet_length(name) between 1 and 512),
    constraint kind_is_known check (kind in ('step', 'sleep', 'wait')),
    constraint outcome_is_known check (outcome in ('done', 'timed_out')),
    constraint a_step_is_done_and_has_a_value check (
        kind <> 'step' or (outcome is not null and outcome = 'done' and value is not null)
    ),
    constraint sleeps_and_waits_have_an_end check (kind = 'step' or until is not null)
);
comment on table reveille.steps is
    'What the handlers of jobs have done: values of steps, and the sleeps and waits of jobs. A later attempt goes on '
    'behind them. They are kept until the job is completed, cancelled or purged.';
comment on column reveille.steps.job is 'The job''s id.';
comment on column reveille.steps.name is 'The name of the step or the sleep, or the event that the job waits for.';
comment on column reveille.steps.kind is '`step`, `sleep` or `wait`.';
comment on column reveille.steps.value is
    'Of a step: the value that its code returned. Of a wait: the event''s payload; null: the event has not come.';
comment on column reveille.steps.until is 'Of a sleep or a wait: the time at which it ends at the latest.';
comment on column reveille.steps.outcome is
    '`done`; `timed_out`: the event did not come in time; null: the sleep or the wait is not over.';
comment on column reveille.steps.attempt is 'The attempt that first recorded the row.';
comment on column reveille.steps.reserved_at is 'The time of the reservation that first recorded the row.';
comment on column reveille.steps.recorded_at is 'The time at which the row was recorded, or got its outcome.';

create table reveille.waits (
    job   bigint      not null,
    event text        not null,
    until timestamptz not null,
    seen  boolean     not null default false,
    primary key (job, event)
);
create index waits_event on reveille.waits (event);
-- These indexes find the rows that no pass has seen yet.
create index waits_unseen on reveille.waits (job, event) where not seen;
comment on table reveille.waits is
    'Jobs that wait for an event. A row comes with the snooze of the job, and goes once the job has recorded that the '
    'event came, or did not come in time.';
comment on column reveille.waits.job is 'The job''s id.';
comment on column reveille.waits.event is 'The event that the job waits for.';
comment on column reveille.waits.until is 'The time at which the job stops waiting.';
comment on column reveille.waits.seen is
    'True once a pass over events and waits has paired the row with all events that were there.';

create table reveille.events (
    name       text        primary key,
    payload    jsonb       not null default 'null',
    emitted_at timestamptz not null default clock_timestamp(),
    until      timestamptz not null default clock_timestamp() + interval '30 days',
    seen       boolean     not null default false,
    constraint name_has_1_to_512_bytes check (octet_length(name) between 1 and 512),
    constraint payload_is_at_most_8_kib check (octet_length(payload::text) <= 8192)
);
create index events_until on reveille.events (until);
create index events_unseen on reveille.events (name) where not seen;
comment on table reveille.events is
    'Events that were emitted. The first emit of a name wins, until upkeep deletes the event 30 days later.';
comment on column reveille.events.name is 'The event''s name.';
comment on column reveille.events.payload is 'The event''s payload: any JSON, at most 8 KiB of text.';
comment on column reveille.events.emitted_at is 'The time at which the event was emitted.';
comment on column reveille.events.until is
    'The time after which upkeep deletes the event, unless a job still waits for it.';
comment on column reveille.events.seen is
    'True once a pass over events and waits has paired the row with all waits that were there.';

create function reveille.emit(event text, payload jsonb default 'null') returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
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
comment on function reveille.emit(text, jsonb) is
    'Emits an event: jobs that wait for it are due at once, and jobs that wait for it later go on at once. Returns '
    'true for the first emit of a name; later emits change nothing. An event is kept for 30 days.';

create function reveille.forget_steps(jobs bigint[]) returns bigint
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
declare
    gone bigint;
begin
    delete from reveille.waits where waits.job = any (forget_steps.jobs);
    delete from reveille.steps where steps.job = any (forget_steps.jobs);
    get diagnostics gone = row_count;
    return gone;
end
$$;
comment on function reveille.forget_steps(bigint[]) is
    'Deletes the steps and waits of these jobs, which have ended. Returns the number of steps.';

insert into reveille.chores (name) values ('events'), ('steps');
