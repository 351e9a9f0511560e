-- The tables. A job is a row of `jobs` while it waits, is delayed or is reserved. Once it has ended, it is a row of
-- `finished_jobs` or `dead_jobs`.

create table reveille.jobs (
    id                  bigint      generated always as identity primary key,
    queue               text        not null default 'default',
    kind                text        not null,
    payload             jsonb       not null default '{}',
    priority            smallint    not null default 2,
    attempts            int         not null default 0,
    failures            int         not null default 0,
    max_attempts        int         not null default 20,
    reserved_at         timestamptz,
    reserved_by         bigint,
    -- Claims read this column of each row that they meet, so it stands before the longer ones.
    paused_by           bigint,
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
    limited             boolean,
    awaited             boolean     not null default false
) with (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0,
    toast.autovacuum_vacuum_cost_delay = 0
);
-- A claim scans each level of its queue in the order of this index.
create index jobs_claim on reveille.jobs (queue, priority, available_at, id)
    where reserved_at is null and paused_by is null;
-- This index serves rescues and the views of running jobs.
create index jobs_reserved on reveille.jobs (reserved_by) where reserved_at is not null;
create index jobs_failing on reveille.jobs (id) where failures > 0;
create unique index jobs_unique on reveille.jobs (kind, unique_key) where unique_key is not null;
-- This index serves the count of running jobs of each limited queue and key.
create index jobs_limited on reveille.jobs (queue, key) where limited and reserved_at is not null;
-- This index serves claims from queues with limits per key, in which keys take turns.
create index jobs_turn on reveille.jobs (queue, key, priority, available_at, id)
    where reserved_at is null and paused_by is null and key is not null;
-- This index finds the first job of each key of an ordered queue.
create index jobs_order on reveille.jobs (queue, key, id) where key is not null;
-- This index finds the parked jobs of each queue and pause.
create index jobs_parked on reveille.jobs (queue, paused_by, id) where paused_by is not null;
comment on table reveille.jobs is
    'Live jobs: waiting, delayed (available_at in the future) or reserved by a worker. An insert wakes a worker that '
    'sleeps on the job''s queue.';
comment on column reveille.jobs.id is
    'The id; no other job gets it, and the job keeps it when it moves to dead_jobs or finished_jobs.';
comment on column reveille.jobs.queue is 'The queue; it exists as soon as a job names it.';
comment on column reveille.jobs.kind is 'The kind; it decides which handler runs the job.';
comment on column reveille.jobs.payload is 'The handler''s input: any JSON, at most 8 MiB of text.';
comment on column reveille.jobs.priority is
    '0 urgent, 1 high, 2 normal, 3 low; jobs with the lowest number start first.';
comment on column reveille.jobs.attempts is 'The number of times the job has been reserved.';
comment on column reveille.jobs.failures is
    'The number of failed attempts: by an error, a timeout, a panic, or a worker that died.';
comment on column reveille.jobs.max_attempts is 'The number of failures at which the job becomes a dead job.';
comment on column reveille.jobs.reserved_at is 'The time at which a worker reserved the job; null while it waits.';
comment on column reveille.jobs.reserved_by is
    'The worker that holds the job (reveille.workers.id); null while it waits.';
comment on column reveille.jobs.available_at is 'The due time, before which the job does not start.';
comment on column reveille.jobs.created_at is 'The start of the transaction that enqueued the job.';
comment on column reveille.jobs.cancel_requested_at is
    'The time at which a cancel of the running job was requested; the job''s handler is asked to stop.';
comment on column reveille.jobs.unique_key is 'The unique key: at most one live job of a kind has it.';
comment on column reveille.jobs.unique_until is
    '`started`: the unique key is given up when the job first starts; `finished` (or null): when the job ends.';
comment on column reveille.jobs.key is
    'The key: what the job belongs to, such as a tenant or an account, for limits and order per key.';
comment on column reveille.jobs.timeout is 'The longest run time of one attempt; null: the worker''s setting.';
comment on column reveille.jobs.tags is 'Free labels: at most 64, together at most 16 KiB.';
comment on column reveille.jobs.metadata is
    'Free data about the job, such as a trace context: a JSON object, at most 256 KiB of text.';
comment on column reveille.jobs.errors is
    'The last 100 failed attempts, oldest first, each with the fields `at`, `worker`, `attempt`, `reason` and `error`.';
comment on column reveille.jobs.progress is 'The latest progress that the handler reported.';
comment on column reveille.jobs.parent_id is 'The id of the job whose handler enqueued this job.';
comment on column reveille.jobs.schedule_id is 'The schedule that enqueued the job.';
comment on column reveille.jobs.limited is
    'True if the reservation counts for the queue''s limits: set when the job is claimed from a queue with limits.';
comment on column reveille.jobs.awaited is
    'True if a program awaits the job: its end is notified on the channel reveille.finished.';
comment on column reveille.jobs.paused_by is
    'The pause that keeps the job parked (reveille.pauses.id); null: no claim has parked the job. No worker claims a '
    'parked job.';

create table reveille.dead_jobs (
    id           bigint           primary key,
    queue        text             not null,
    kind         text             not null,
    payload      jsonb            not null,
    priority     smallint         not null,
    attempts     int              not null,
    failures     int              not null,
    max_attempts int              not null,
    available_at timestamptz      not null,
    created_at   timestamptz      not null,
    unique_key   text,
    unique_until text,
    key          text,
    timeout      interval,
    tags         text[],
    metadata     jsonb,
    errors       jsonb,
    progress     jsonb,
    parent_id    bigint,
    schedule_id  bigint,
    reason       text             not null,
    worker       bigint,
    wait_seconds double precision,
    run_seconds  double precision,
    finished_at  timestamptz      not null default now(),
    constraint reason_is_known check (reason in ('failed', 'permanent', 'timed_out', 'lost', 'undecodable'))
) with (autovacuum_vacuum_insert_scale_factor = 0.05);
create index dead_jobs_by_kind on reveille.dead_jobs (queue, kind, reason, finished_at);
comment on table reveille.dead_jobs is
    'Jobs that have failed permanently or have no attempts left, kept until revived (reveille.retry) or purged.';
comment on column reveille.dead_jobs.id is 'The job''s id.';
comment on column reveille.dead_jobs.queue is 'The queue.';
comment on column reveille.dead_jobs.kind is 'The kind; it decided which handler ran the job.';
comment on column reveille.dead_jobs.payload is 'The handler''s input.';
comment on column reveille.dead_jobs.priority is '0 urgent, 1 high, 2 normal, 3 low.';
comment on column reveille.dead_jobs.attempts is 'The number of times the job was reserved.';
comment on column reveille.dead_jobs.failures is 'The number of failed attempts.';
comment on column reveille.dead_jobs.max_attempts is 'The number of failures at which the job becomes a dead job.';
comment on column reveille.dead_jobs.available_at is 'The last due time.';
comment on column reveille.dead_jobs.created_at is 'The start of the transaction that enqueued the job.';
comment on column reveille.dead_jobs.unique_key is 'The unique key; a revived job holds it again.';
comment on column reveille.dead_jobs.unique_until is 'As in reveille.jobs.';
comment on column reveille.dead_jobs.key is 'The key: what the job belongs to, such as a tenant.';
comment on column reveille.dead_jobs.timeout is 'The longest run time of one attempt; null: the worker''s setting.';
comment on column reveille.dead_jobs.tags is 'Free labels.';
comment on column reveille.dead_jobs.metadata is 'Free data about the job.';
comment on column reveille.dead_jobs.errors is
    'The last 100 failed attempts, oldest first, each with the fields `at`, `worker`, `attempt`, `reason` and `error`.';
comment on column reveille.dead_jobs.progress is 'The latest progress that the handler reported.';
comment on column reveille.dead_jobs.parent_id is 'The id of the job whose handler enqueued this job.';
comment on column reveille.dead_jobs.schedule_id is 'The schedule that enqueued the job.';
comment on column reveille.dead_jobs.reason is
    '`failed`: no attempts left; `permanent`: the handler reported a permanent failure; `timed_out`: no attempts left, '
    'and the last attempt timed out; `lost`: the worker of the last attempt died, and the job could not be tried '
    'again; `undecodable`: the job could not be claimed, or its payload did not fit its kind.';
comment on column reveille.dead_jobs.worker is 'The worker of the last attempt.';
comment on column reveille.dead_jobs.wait_seconds is 'The seconds from the due time to the start of the last attempt.';
comment on column reveille.dead_jobs.run_seconds is 'The run time of the last attempt in seconds.';
comment on column reveille.dead_jobs.finished_at is 'The time at which the job became a dead job.';

create table reveille.finished_jobs (
    day          smallint         not null,
    id           bigint           not null,
    queue        text             not null,
    kind         text             not null,
    payload      jsonb            not null,
    priority     smallint         not null,
    attempts     int              not null,
    failures     int              not null,
    max_attempts int              not null,
    available_at timestamptz      not null,
    created_at   timestamptz      not null,
    key          text,
    tags         text[],
    metadata     jsonb,
    errors       jsonb,
    progress     jsonb,
    parent_id    bigint,
    schedule_id  bigint,
    outcome      text             not null,
    result       jsonb,
    worker       bigint,
    wait_seconds double precision,
    run_seconds  double precision,
    finished_at  timestamptz      not null default now(),
    constraint outcome_is_known check (outcome in ('completed', 'cancelled'))
) partition by list (day);
create index finished_jobs_id on reveille.finished_jobs (id);
comment on table reveille.finished_jobs is
    'Completed and cancelled jobs, kept for their queue''s retention (1 day unless reveille.queues has another).';
comment on column reveille.finished_jobs.day is
    'The partition: the UTC day on which the job ended, counted in days since 1970, modulo 32.';
comment on column reveille.finished_jobs.id is 'The job''s id.';
comment on column reveille.finished_jobs.queue is 'The queue.';
comment on column reveille.finished_jobs.kind is 'The kind; it decided which handler ran the job.';
comment on column reveille.finished_jobs.payload is 'The handler''s input.';
comment on column reveille.finished_jobs.priority is '0 urgent, 1 high, 2 normal, 3 low.';
comment on column reveille.finished_jobs.attempts is 'The number of times the job was reserved.';
comment on column reveille.finished_jobs.failures is 'The number of failed attempts.';
comment on column reveille.finished_jobs.max_attempts is
    'The number of failures at which the job would have become a dead job.';
comment on column reveille.finished_jobs.available_at is 'The last due time.';
comment on column reveille.finished_jobs.created_at is 'The start of the transaction that enqueued the job.';
comment on column reveille.finished_jobs.key is 'The key: what the job belongs to, such as a tenant.';
comment on column reveille.finished_jobs.tags is 'Free labels.';
comment on column reveille.finished_jobs.metadata is 'Free data about the job.';
comment on column reveille.finished_jobs.errors is
    'The last 100 failed attempts, oldest first, each with the fields `at`, `worker`, `attempt`, `reason` and `error`.';
comment on column reveille.finished_jobs.progress is 'The latest progress that the handler reported.';
comment on column reveille.finished_jobs.parent_id is 'The id of the job whose handler enqueued this job.';
comment on column reveille.finished_jobs.schedule_id is 'The schedule that enqueued the job.';
comment on column reveille.finished_jobs.outcome is '`completed` or `cancelled`.';
comment on column reveille.finished_jobs.result is 'The result that the handler returned.';
comment on column reveille.finished_jobs.worker is
    'The worker of the last attempt; null if the job was cancelled while it waited.';
comment on column reveille.finished_jobs.wait_seconds is
    'The seconds from the due time to the start of the last attempt.';
comment on column reveille.finished_jobs.run_seconds is 'The run time of the last attempt in seconds.';
comment on column reveille.finished_jobs.finished_at is 'The time at which the job ended.';
do $$
begin
    for day in 0..31 loop
        execute format(
            'create table reveille.finished_jobs_%s partition of reveille.finished_jobs for values in (%s)', day, day);
    end loop;
end
$$;
do $$
begin
    execute 'alter table reveille.finished_jobs replica identity full';
    for day in 0..31 loop
        execute format('alter table reveille.finished_jobs_%s replica identity full', day);
    end loop;
end
$$;
do $$
begin
    for day in 0..31 loop
        execute format(
            'alter table reveille.finished_jobs_%s
            set (autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1)',
            day
        );
    end loop;
end
$$;

create table reveille.queues (
    name                text        primary key,
    paused_at           timestamptz,
    retention           interval,
    max_running         int,
    max_running_per_key int,
    rate_limit          int,
    rate_period         interval,
    rate_burst          int,
    rate_per_key        int,
    bell                boolean     not null default true,
    ordered             boolean     not null default false,
    limited             text        generated always as (
        case
            when ordered or max_running_per_key is not null or rate_per_key is not null then 'key'
            when max_running is not null or rate_limit is not null then 'queue'
        end
    ) stored,
    limited_since       timestamptz,
    dead_retention      interval,
    constraint name_has_1_to_128_characters check (length(name) between 1 and 128),
    constraint retention_is_0_to_30_days check (retention between interval '0' and interval '30 days'),
    constraint limits_are_positive check (
        max_running > 0 and max_running_per_key > 0 and rate_limit > 0 and rate_burst > 0 and rate_per_key > 0
    ),
    constraint rate_period_is_1_millisecond_to_30_days check (
        rate_period between interval '1 millisecond' and interval '30 days'
    ),
    constraint dead_retention_is_0_to_100_years check (
        dead_retention between interval '0' and interval '36500 days'
    )
);
comment on table reveille.queues is 'Settings per queue; a queue without a row has the defaults.';
comment on column reveille.queues.name is 'The queue.';
comment on column reveille.queues.paused_at is
    'The time at which the queue was paused; none of its jobs starts while it is paused. Null: it is not paused.';
comment on column reveille.queues.retention is
    'The time for which finished jobs are kept, to within an hour: 0 to 30 days; null: 1 day; 0: finished jobs are '
    'not stored.';
comment on column reveille.queues.max_running is
    'The maximum number of running jobs of the queue, all workers together; null: no limit.';
comment on column reveille.queues.max_running_per_key is
    'The maximum number of running jobs with the same key; null: no limit.';
comment on column reveille.queues.rate_limit is
    'The maximum number of jobs of the queue that start in each rate_period; null: no limit.';
comment on column reveille.queues.rate_period is 'The period of rate_limit and rate_per_key; null: 1 second.';
comment on column reveille.queues.rate_burst is
    'The number of jobs that may start at once after a time without starts, for the queue and for each key; null: 1.';
comment on column reveille.queues.rate_per_key is
    'The maximum number of jobs with the same key that start in each rate_period; null: no limit.';
comment on column reveille.queues.bell is
    '`false`: enqueuing sends no NOTIFY; workers find the jobs at their next poll.';
comment on column reveille.queues.ordered is
    'True if jobs with the same key run one at a time, in the order of their ids.';
comment on column reveille.queues.limited is
    'key: the queue has an order or a limit per key; queue: it has only limits for the whole queue; null: it has '
    'neither limits nor an order.';
comment on column reveille.queues.limited_since is
    'The time from which the queue has had limits or an order without a break; null: it has neither. A trigger sets '
    'this column.';
comment on column reveille.queues.dead_retention is
    'The time for which dead jobs are kept: 0 to 36500 days; null: until they are revived or purged.';

create table reveille.pauses (
    id        bigint      generated always as identity primary key,
    queue     text,
    kind      text,
    key       text,
    paused_at timestamptz not null default clock_timestamp(),
    constraint a_pause_has_a_kind_or_a_key check (kind is not null or key is not null),
    constraint queue_has_1_to_128_characters check (length(queue) between 1 and 128),
    constraint kind_has_1_to_128_characters check (length(kind) between 1 and 128),
    constraint key_has_1_to_512_bytes check (octet_length(key) between 1 and 512)
);
-- Nulls count as equal here, so that a pause is stored once. Postgres before 15 has no `nulls not distinct`.
create unique index pauses_covered on reveille.pauses
    ((coalesce(queue, '')), (coalesce(key, '')), (coalesce(kind, '')));
comment on table reveille.pauses is
    'The pauses of kinds and keys: no job that a pause covers starts. A job is covered if its queue, kind and key are '
    'those that the pause names. A whole queue is paused by reveille.queues.paused_at.';
comment on column reveille.pauses.id is 'The id.';
comment on column reveille.pauses.queue is 'The queue whose jobs the pause covers; null: all queues.';
comment on column reveille.pauses.kind is 'The kind whose jobs the pause covers; null: all kinds.';
comment on column reveille.pauses.key is 'The key whose jobs the pause covers; null: all keys, and jobs without a key.';
comment on column reveille.pauses.paused_at is 'The time at which the pause began.';

create table reveille.workers (
    id                bigint        primary key,
    host              text          not null,
    pid               int           not null,
    version           text          not null,
    queues            text[]        not null,
    kinds             text[],
    slots             int           not null,
    queue_slots       int[]         not null default '{}',
    started_at        timestamptz   not null default now(),
    last_seen_at      timestamptz   not null default now(),
    holds_lock        boolean       not null default false,
    stopping          boolean       not null default false,
    stop_requested_at timestamptz,
    stuck_jobs        bigint[],
    stuck_since       timestamptz[],
    backend           int
) with (fillfactor = 50);
comment on table reveille.workers is
    'Live worker processes, one row each, updated by their heartbeats. A rescue takes back each job that is reserved '
    'by a worker without a row.';
comment on column reveille.workers.id is 'A random number, new at each start of the worker.';
comment on column reveille.workers.host is 'The name of the worker''s host.';
comment on column reveille.workers.pid is 'The process id on that host.';
comment on column reveille.workers.version is 'The version of Reveille that the worker runs.';
comment on column reveille.workers.queues is 'The queues that the worker works.';
comment on column reveille.workers.kinds is
    'The kinds for which the worker has a handler; null: it has a handler for every kind.';
comment on column reveille.workers.slots is 'The number of slots, all queues together.';
comment on column reveille.workers.queue_slots is
    'The number of slots of each queue, in the order of queues. The worker reads it at each heartbeat.';
comment on column reveille.workers.started_at is 'The time at which the worker started.';
comment on column reveille.workers.last_seen_at is 'The time of the last heartbeat.';
comment on column reveille.workers.holds_lock is
    'True if the session of the worker''s listener has taken an advisory lock on the worker''s id. While the session '
    'holds this lock, the worker lives.';
comment on column reveille.workers.stopping is 'True if the worker only finishes its running jobs and starts no more.';
comment on column reveille.workers.stop_requested_at is
    'The time at which the worker was asked to shut down (reveille.stop_worker).';
comment on column reveille.workers.stuck_jobs is
    'The worker''s stuck jobs: their handlers were asked to stop five seconds ago or more and still run; null: none. '
    'Written at each heartbeat.';
comment on column reveille.workers.stuck_since is
    'The times at which the handlers of stuck_jobs were asked to stop, in the same order.';
comment on column reveille.workers.backend is
    'The process id of the server''s backend whose lock shows that the worker lives: at first the backend of the '
    'session that has registered the worker, then that of the listener''s session. Null: no backend is known, and the '
    'lock of any session shows it.';

create table reveille.sleepers (
    queue  text    not null,
    worker bigint  not null references reveille.workers (id) on delete cascade,
    silent boolean not null default false,
    primary key (queue, worker)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on table reveille.sleepers is
    'The queues on which workers sleep: one row per queue and worker. The bell rings only for these queues.';
comment on column reveille.sleepers.queue is 'The queue on which the worker sleeps.';
comment on column reveille.sleepers.worker is 'The worker; deleting its row in reveille.workers deletes this row too.';
comment on column reveille.sleepers.silent is
    'True if the queue''s bell is switched off (reveille.queues.bell), so that enqueuing does not ring for the worker.';
-- Without statistics the planner assumes that a table has ten pages. It would then find the sleepers of a queue by a
-- bitmap scan, which costs each enqueue more than reading the few rows.
analyze reveille.sleepers;

create table reveille.ends (
    id       bigint      not null,
    outcome  text        not null,
    result   jsonb,
    errors   jsonb,
    ended_at timestamptz not null default clock_timestamp(),
    queue    text,
    worker   bigint,
    attempt  int,
    constraint outcome_is_known check (outcome in ('completed', 'cancelled'))
);
-- The table has no primary key, because after a restore an id may be given out a second time. A primary key would then
-- refuse the ending of the second job, and the job could not be settled.
create index ends_id on reveille.ends (id);
create index ends_ended_at on reveille.ends (ended_at);
comment on table reveille.ends is
    'The endings of jobs from queues without history, if the jobs are awaited or were completed by '
    'reveille.complete_in, kept for at least a minute. reveille.await reads this table, and so does a worker that '
    'finds its job gone.';
comment on column reveille.ends.id is 'The job''s id.';
comment on column reveille.ends.outcome is 'completed or cancelled; a dead job is in reveille.dead_jobs.';
comment on column reveille.ends.result is 'The result that the handler returned.';
comment on column reveille.ends.errors is 'The failed attempts, as in reveille.finished_jobs.';
comment on column reveille.ends.ended_at is
    'The time at which the job ended; upkeep deletes the row at least a minute later.';
comment on column reveille.ends.queue is 'The queue of a job that reveille.complete_in completed; else null.';
comment on column reveille.ends.worker is 'The worker for which reveille.complete_in completed the job; else null.';
comment on column reveille.ends.attempt is 'The attempt in which reveille.complete_in completed the job; else null.';

create table reveille.passed_over (
    id      bigint      primary key,
    queue   text        not null,
    code    text        not null,
    error   text        not null,
    seen_at timestamptz not null default now()
);
comment on table reveille.passed_over is
    'Jobs that can neither be claimed nor be made dead jobs. Workers list them here, and claim the other jobs of the '
    'queue.';
comment on column reveille.passed_over.id is 'The job''s id.';
comment on column reveille.passed_over.queue is 'The job''s queue.';
comment on column reveille.passed_over.code is 'The SQLSTATE of the error with which a claim of the job fails.';
comment on column reveille.passed_over.error is 'The message of the error with which a claim of the job fails.';
comment on column reveille.passed_over.seen_at is 'The time at which a worker last tried to claim the job.';

create table reveille.chores (
    name      text        primary key,
    day       smallint,
    next_page bigint,
    settings  text,
    began_at  timestamptz,
    done_at   timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
comment on table reveille.chores is
    'The chores of upkeep. A worker locks a chore''s row while it works on one slice of the chore, so that no two '
    'workers do the same chore at the same time.';
comment on column reveille.chores.name is 'The chore.';
comment on column reveille.chores.day is
    'The day of the history that the chore cleans, as in reveille.finished_jobs; null: the chore cleans no day.';
comment on column reveille.chores.next_page is
    'The page of the day''s partition at which the next slice begins; null: no round is under way. A round reads all '
    'pages of the partition, slice by slice.';
comment on column reveille.chores.settings is
    'The retentions that the last round applied; locked: another session had locked a row, so the day needs another '
    'round.';
comment on column reveille.chores.began_at is 'The time at which the last round began.';
comment on column reveille.chores.done_at is 'The time at which the last round ended.';
insert into reveille.chores (name)
values
    ('counters'), ('old counters'), ('kinds'), ('rates'), ('unique keys'), ('old days'), ('dead jobs'), ('statistics'),
    ('vacuum'), ('ends'), ('parked jobs');
insert into reveille.chores (name, day) select 'day ' || day, day from generate_series(0, 31) as day;

-- This function skips a row if the table already has that chore. A dump of the data brings such rows when it is
-- restored.
create function reveille.pass_over_known_chore() returns trigger
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    return case when exists (select from reveille.chores where name = new.name) then null else new end;
end
$$;
comment on function reveille.pass_over_known_chore() is
    'Skips an inserted chore that the table already has, as when a dump of the data is restored.';

create trigger pass_over_known before insert on reveille.chores
    for each row execute function reveille.pass_over_known_chore();
alter table reveille.chores enable always trigger pass_over_known;

-- This function skips a row if the table already records that migration. A dump of the data brings such rows, and so
-- does the initial table copy of a subscription. If the row has another name or checksum than the recorded migration,
-- the function refuses the row. Its trigger is enabled `always`, because replication fires no other triggers.
create function reveille.pass_over_known_migration() returns trigger
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
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
comment on function reveille.pass_over_known_migration() is
    'Skips an inserted migration that the table already records, as when a dump of the data is restored. Refuses a '
    'migration that the table records with another name or checksum.';

create trigger pass_over_known before insert on reveille.schema_history
    for each row execute function reveille.pass_over_known_migration();
alter table reveille.schema_history enable always trigger pass_over_known;
