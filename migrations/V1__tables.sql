-- The tables. A job is a row: it waits, is delayed or is reserved in `jobs`, and ends in `finished_jobs` or `dead_jobs`.

create table reveille.jobs (
    id                  bigint generated always as identity primary key,
    queue               text        not null default 'default',
    kind                text        not null,
    payload             jsonb       not null default '{}',
    priority            smallint    not null default 2,
    attempts            int         not null default 0,
    failures            int         not null default 0,
    max_attempts        int         not null default 20,
    reserved_at         timestamptz,
    reserved_by         bigint,
    available_at        timestamptz not null default now(),
    created_at          timestamptz not null default now(),
    cancel_requested_at timestamptz,
    unique_key          text,
    unique_until        text,
    key                 text,
    timeout             interval,
    tags                text[],
    metadata            jsonb,
    errors              jsonb,
    progress            jsonb,
    parent_id           bigint,
    schedule_id         bigint,
    constraint queue_has_1_to_128_characters check (length(queue) between 1 and 128),
    constraint kind_has_1_to_128_characters check (length(kind) between 1 and 128),
    constraint payload_is_at_most_8_mib check (pg_column_size(payload) <= 8388608),
    constraint priority_is_0_to_3 check (priority between 0 and 3),
    constraint attempts_is_not_negative check (attempts >= 0),
    constraint failures_is_0_to_attempts check (failures between 0 and attempts),
    constraint max_attempts_is_positive check (max_attempts > 0),
    constraint reserved_at_and_by_go_together check ((reserved_at is null) = (reserved_by is null)),
    constraint times_are_finite check (
        isfinite(available_at) and isfinite(created_at) and isfinite(coalesce(reserved_at, created_at))
    ),
    constraint unique_key_has_1_to_512_bytes check (octet_length(unique_key) between 1 and 512),
    constraint unique_until_is_started_or_finished check (
        unique_until is null or (unique_key is not null and unique_until in ('started', 'finished'))
    ),
    constraint key_has_1_to_512_bytes check (octet_length(key) between 1 and 512),
    constraint timeout_is_positive check (timeout > interval '0'),
    constraint tags_are_at_most_64 check (cardinality(tags) <= 64 and array_position(tags, null) is null),
    constraint metadata_is_an_object check (jsonb_typeof(metadata) = 'object'),
    constraint errors_is_an_array check (jsonb_typeof(errors) = 'array')
);

-- What a claim scans: one level of one queue, in due order.
create index jobs_claim on reveille.jobs (queue, priority, available_at, id) where reserved_at is null;
-- What a worker holds: rescue, and the views of what runs.
create index jobs_reserved on reveille.jobs (reserved_by) where reserved_at is not null;
create index jobs_failing on reveille.jobs (id) where failures > 0;
create unique index jobs_unique on reveille.jobs (kind, unique_key) where unique_key is not null;

-- Every job leaves at least two dead rows behind: vacuum early, and by count rather than by share.
alter table reveille.jobs set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

comment on table reveille.jobs is 'Live jobs: waiting, delayed (available_at in the future) or reserved by a worker. An insert wakes a worker.';
comment on column reveille.jobs.id is 'Identity; never reused, and kept when the job moves to dead_jobs or finished_jobs.';
comment on column reveille.jobs.queue is 'Which queue; a queue exists as soon as a job names it.';
comment on column reveille.jobs.kind is 'Which handler runs it.';
comment on column reveille.jobs.payload is 'What the handler gets: any JSON.';
comment on column reveille.jobs.priority is '0 urgent, 1 high, 2 normal, 3 low; lower runs first.';
comment on column reveille.jobs.attempts is 'How often it has been reserved.';
comment on column reveille.jobs.failures is 'How many attempts have failed: error, timeout, panic, or a worker that died.';
comment on column reveille.jobs.max_attempts is 'At this many failures the job is dead.';
comment on column reveille.jobs.reserved_at is 'Since when a worker holds it; null while it waits.';
comment on column reveille.jobs.reserved_by is 'Which worker holds it (reveille.workers.id); null while it waits.';
comment on column reveille.jobs.available_at is 'Not before this time.';
comment on column reveille.jobs.created_at is 'When it was enqueued: the start of the enqueuing transaction.';
comment on column reveille.jobs.cancel_requested_at is 'Since when its running handler has been asked to stop.';
comment on column reveille.jobs.unique_key is 'At most one live job of a kind has this key.';
comment on column reveille.jobs.unique_until is 'started: the key is given up when the job first starts; finished (or null): when it ends.';
comment on column reveille.jobs.key is 'What it belongs to (a tenant, an account), for limits and order per key.';
comment on column reveille.jobs.timeout is 'How long one attempt may take; null: as its worker says.';
comment on column reveille.jobs.tags is 'Free labels.';
comment on column reveille.jobs.metadata is 'Free facts about the job, such as a trace context; an object.';
comment on column reveille.jobs.errors is 'Its failed attempts, oldest first: at, worker, attempt, reason, error. The last 100.';
comment on column reveille.jobs.progress is 'What its handler last said of its progress.';
comment on column reveille.jobs.parent_id is 'The job that enqueued it.';
comment on column reveille.jobs.schedule_id is 'The schedule that enqueued it.';

create table reveille.dead_jobs (
    id                  bigint primary key,
    queue               text        not null,
    kind                text        not null,
    payload             jsonb       not null,
    priority            smallint    not null,
    attempts            int         not null,
    failures            int         not null,
    max_attempts        int         not null,
    available_at        timestamptz not null,
    created_at          timestamptz not null,
    unique_key          text,
    unique_until        text,
    key                 text,
    timeout             interval,
    tags                text[],
    metadata            jsonb,
    errors              jsonb,
    progress            jsonb,
    parent_id           bigint,
    schedule_id         bigint,
    reason              text        not null,
    worker              bigint,
    wait_seconds        double precision,
    run_seconds         double precision,
    finished_at         timestamptz not null default now(),
    constraint reason_is_known check (reason in ('failed', 'permanent', 'timed_out', 'lost', 'undecodable'))
);
create index dead_jobs_by_kind on reveille.dead_jobs (queue, kind, reason, finished_at);

comment on table reveille.dead_jobs is 'Jobs out of attempts or permanently failed, kept until revived (reveille.retry) or purged.';
comment on column reveille.dead_jobs.reason is 'failed: out of attempts; permanent: its handler said so; timed_out; lost: its workers died; undecodable: its payload did not fit its kind.';
comment on column reveille.dead_jobs.worker is 'The worker of its last attempt.';
comment on column reveille.dead_jobs.wait_seconds is 'From being due to the start of its last attempt.';
comment on column reveille.dead_jobs.run_seconds is 'How long its last attempt took.';
comment on column reveille.dead_jobs.finished_at is 'When it died.';

create table reveille.finished_jobs (
    day                 smallint    not null,
    id                  bigint      not null,
    queue               text        not null,
    kind                text        not null,
    payload             jsonb       not null,
    priority            smallint    not null,
    attempts            int         not null,
    failures            int         not null,
    max_attempts        int         not null,
    available_at        timestamptz not null,
    created_at          timestamptz not null,
    key                 text,
    tags                text[],
    metadata            jsonb,
    errors              jsonb,
    progress            jsonb,
    parent_id           bigint,
    schedule_id         bigint,
    outcome             text        not null,
    result              jsonb,
    worker              bigint,
    wait_seconds        double precision,
    run_seconds         double precision,
    finished_at         timestamptz not null default now(),
    constraint outcome_is_known check (outcome in ('completed', 'cancelled'))
) partition by list (day);
create index finished_jobs_id on reveille.finished_jobs (id);

-- A fixed ring, so that no partition has ever to be made or can be missing: day number modulo 32.
do $$
begin
    for day in 0..31 loop
        execute format(
            'create table reveille.finished_jobs_%s partition of reveille.finished_jobs for values in (%s)', day, day);
    end loop;
end
$$;

comment on table reveille.finished_jobs is 'Completed and cancelled jobs, kept for their queue''s retention (1 day unless reveille.queues says otherwise).';
comment on column reveille.finished_jobs.day is 'Which partition: the number of the UTC day since 1970, modulo 32.';
comment on column reveille.finished_jobs.outcome is 'completed or cancelled.';
comment on column reveille.finished_jobs.result is 'What its handler returned to be kept.';
comment on column reveille.finished_jobs.worker is 'The worker of its last attempt; null if it was cancelled while it waited.';
comment on column reveille.finished_jobs.wait_seconds is 'From being due to the start of its last attempt.';
comment on column reveille.finished_jobs.run_seconds is 'How long its last attempt took.';
comment on column reveille.finished_jobs.finished_at is 'When it ended.';

create table reveille.queues (
    name                text primary key,
    paused_at           timestamptz,
    retention           interval,
    max_running         int,
    max_running_per_key int,
    rate_limit          int,
    rate_period         interval,
    rate_burst          int,
    rate_per_key        int,
    bell                boolean not null default true,
    constraint name_has_1_to_128_characters check (length(name) between 1 and 128),
    constraint retention_is_0_to_30_days check (retention between interval '0' and interval '30 days'),
    -- The columns are here so that the table need not change; a limit that nobody keeps must not be settable.
    constraint limits_are_not_enforced_yet check (
        coalesce(max_running, max_running_per_key, rate_limit, rate_burst, rate_per_key) is null and rate_period is null
    )
);

comment on table reveille.queues is 'Settings per queue; a queue without a row has the defaults.';
comment on column reveille.queues.name is 'The queue.';
comment on column reveille.queues.paused_at is 'Since when no job of it is started; null: it runs.';
comment on column reveille.queues.retention is 'How long its finished jobs are kept: 0 to 30 days; null: 1 day; 0: they are not written at all.';
comment on column reveille.queues.max_running is 'Reserved for a later version; must be null.';
comment on column reveille.queues.max_running_per_key is 'Reserved for a later version; must be null.';
comment on column reveille.queues.rate_limit is 'Reserved for a later version; must be null.';
comment on column reveille.queues.rate_period is 'Reserved for a later version; must be null.';
comment on column reveille.queues.rate_burst is 'Reserved for a later version; must be null.';
comment on column reveille.queues.rate_per_key is 'Reserved for a later version; must be null.';
comment on column reveille.queues.bell is 'false: enqueuing sends no NOTIFY; workers find the jobs at their next poll.';

create table reveille.workers (
    id                  bigint primary key,
    host                text        not null,
    pid                 int         not null,
    version             text        not null,
    queues              text[]      not null,
    slots               int         not null,
    started_at          timestamptz not null default now(),
    last_seen_at        timestamptz not null default now(),
    holds_lock          boolean     not null default false,
    stopping            boolean     not null default false
) with (fillfactor = 50);

comment on table reveille.workers is 'Live worker processes, a row each, touched by their heartbeat. A job reserved by a worker without a row is put back.';
comment on column reveille.workers.id is 'Random, new at each start.';
comment on column reveille.workers.host is 'Its host''s name.';
comment on column reveille.workers.pid is 'Its process there.';
comment on column reveille.workers.version is 'The version of its program.';
comment on column reveille.workers.queues is 'The queues it works.';
comment on column reveille.workers.slots is 'How many jobs it runs at once, all queues together.';
comment on column reveille.workers.started_at is 'When it started.';
comment on column reveille.workers.last_seen_at is 'Its last heartbeat.';
comment on column reveille.workers.holds_lock is 'Whether a session-level advisory lock of its listener vouches for it.';
comment on column reveille.workers.stopping is 'It finishes what it runs and starts nothing more.';

create table reveille.sleepers (
    queue               text        not null,
    worker              bigint      not null references reveille.workers on delete cascade,
    primary key (queue, worker)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

comment on table reveille.sleepers is 'Workers that sleep and wait for the bell: the only ones that it rings for.';
comment on column reveille.sleepers.queue is 'The queue that it waits for.';
comment on column reveille.sleepers.worker is 'Who sleeps; its row here goes with its row in reveille.workers.';

create table reveille.counters (
    queue               text        not null,
    started_at          timestamptz not null,
    worker              bigint      not null,
    completed           bigint      not null default 0,
    failed              bigint      not null default 0,
    wait_seconds        double precision not null default 0,
    max_wait_seconds    double precision not null default 0,
    run_seconds         double precision not null default 0,
    max_run_seconds     double precision not null default 0,
    primary key (queue, started_at, worker)
) with (fillfactor = 50);
create index counters_started_at on reveille.counters (started_at);

comment on table reveille.counters is 'Ended attempts, counted as they are settled: a row a queue, worker and 10 seconds, folded into a row a queue and minute (worker 0) after 5 minutes.';
comment on column reveille.counters.queue is 'The queue.';
comment on column reveille.counters.started_at is 'The start of the 10 seconds, or of the minute where worker is 0.';
comment on column reveille.counters.worker is 'The worker that settled them, which alone writes the row; 0: all of them.';
comment on column reveille.counters.completed is 'Completed jobs.';
comment on column reveille.counters.failed is 'Failed attempts.';
comment on column reveille.counters.wait_seconds is 'Sum of the times from being due to being started.';
comment on column reveille.counters.max_wait_seconds is 'The longest of them.';
comment on column reveille.counters.run_seconds is 'Sum of the run times.';
comment on column reveille.counters.max_run_seconds is 'The longest of them.';
