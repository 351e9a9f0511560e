-- The record of what operators do: single changes, and runs over many jobs.

create table reveille.actions (
    id                bigint      generated always as identity primary key,
    started_at        timestamptz not null default now(),
    actor             text        not null,
    source            text        not null,
    action            text        not null,
    target            jsonb       not null default '{}',
    detail            jsonb       not null default '{}',
    matching          bigint,
    done              bigint,
    requested         bigint,
    passed_over       bigint,
    left_over         bigint,
    refused           bigint,
    highest_id        bigint,
    last_id           bigint,
    seen_at           timestamptz not null default clock_timestamp(),
    stop_requested_at timestamptz,
    ended_at          timestamptz,
    outcome           text,
    error             text,
    request           text,
    constraint actor_has_1_to_128_characters check (length(actor) between 1 and 128),
    constraint source_has_1_to_128_characters check (length(source) between 1 and 128),
    constraint outcome_is_known check (outcome in ('done', 'stopped', 'failed')),
    constraint ended_actions_have_an_outcome check ((ended_at is null) = (outcome is null))
);
comment on table reveille.actions is
    'What operators did by the command, the dashboard or another program that acts as someone: one row for each single '
    'change, and one for each run over many jobs. Upkeep deletes the rows after 90 days.';
comment on column reveille.actions.id is 'The id. Later actions have higher ids.';
comment on column reveille.actions.started_at is 'The time of the change, or the time at which the run began.';
comment on column reveille.actions.actor is 'The person or program that acted, as the source names it.';
comment on column reveille.actions.source is 'The way by which the actor acted, such as `command` or `dashboard`.';
comment on column reveille.actions.action is
    'The action: `retry`, `cancel`, `revive`, `purge`, `run_again`, `edit`, `enqueue`, `pause`, `resume`, `set_queue`, '
    '`remove_queue`, `stop_worker`, `set_slots`, `schedule`, `unschedule`, `pause_schedule`, `resume_schedule`, '
    '`trigger_schedule` or `prune`.';
comment on column reveille.actions.target is
    'The thing that was acted on, such as `{"job": 7}`, `{"queue": "mail"}` or `{"filter": {"kind": "charge"}}`. In '
    'place of a payload there is its hash.';
comment on column reveille.actions.detail is
    'The answer, and the changed settings with their old and new values. In place of a payload there is an object with '
    '`sha256`, the hash of its text as Postgres writes it, and `bytes`, the length of this text.';
comment on column reveille.actions.matching is
    'Of a run: the number of jobs that passed the filter when they were counted; null: they were not counted.';
comment on column reveille.actions.done is
    'Of a run: the number of changed jobs, written in the transactions that change them. Null: a single change.';
comment on column reveille.actions.requested is
    'Of a run: the number of running jobs among these, whose handlers were asked to stop.';
comment on column reveille.actions.passed_over is
    'Of a run: the number of jobs that were not touched, because they changed meanwhile or another session has locked '
    'them.';
comment on column reveille.actions.left_over is
    'Of a run: the number of jobs that stay dead because live jobs hold their unique keys, or that an edit leaves '
    'because their payloads are encrypted, and the new one is not.';
comment on column reveille.actions.refused is 'Of a run: the number of jobs that the server refused to change.';
comment on column reveille.actions.highest_id is
    'Of a run: the highest id at its start. Jobs with higher ids came later, and are not touched.';
comment on column reveille.actions.last_id is
    'Of a run: the highest id that it has reached. A run that has lost an answer of the server goes on behind it.';
comment on column reveille.actions.seen_at is
    'The last sign of life of a run. A run without a sign for 30 seconds is interrupted: its process has ended, or '
    'cannot reach the database.';
comment on column reveille.actions.stop_requested_at is
    'The time at which somebody asked the run to stop. The run stops before its next transaction.';
comment on column reveille.actions.ended_at is 'The end; null while a run goes on, and after an interruption.';
comment on column reveille.actions.outcome is '`done`, `stopped` or `failed`; null: not ended.';
comment on column reveille.actions.error is 'The error that ended a run.';
comment on column reveille.actions.request is
    'The name of the request that asked for the change, such as a form that was sent. There is one action of each '
    'request. Null: the request has no name.';

create unique index actions_by_request on reveille.actions (request) where request is not null;

create view reveille.action_status as
select
    id, started_at, actor, source, action, target, detail,
    case
        when outcome is not null then outcome
        when seen_at > now() - interval '30 seconds' then 'running'
        else 'interrupted'
    end as state,
    matching, done, requested, passed_over, left_over, refused, highest_id, seen_at, stop_requested_at, ended_at, error
from reveille.actions;
comment on view reveille.action_status is
    'What operators did in the last 90 days: one row for each single change and for each run over many jobs. Give it '
    'an `order by id desc` and a `limit`.';
comment on column reveille.action_status.id is 'The id. Later actions have higher ids.';
comment on column reveille.action_status.started_at is 'The time of the change, or the time at which the run began.';
comment on column reveille.action_status.actor is 'The person or program that acted, as the source names it.';
comment on column reveille.action_status.source is
    'The way by which the actor acted, such as `command` or `dashboard`.';
comment on column reveille.action_status.action is
    'The action: `retry`, `cancel`, `revive`, `purge`, `run_again`, `edit`, `enqueue`, `pause`, `resume`, `set_queue`, '
    '`remove_queue`, `stop_worker`, `set_slots`, `schedule`, `unschedule`, `pause_schedule`, `resume_schedule`, '
    '`trigger_schedule` or `prune`.';
comment on column reveille.action_status.target is
    'The thing that was acted on, such as `{"job": 7}`, `{"queue": "mail"}` or `{"filter": {"kind": "charge"}}`. In '
    'place of a payload there is its hash.';
comment on column reveille.action_status.detail is
    'The answer, and the changed settings with their old and new values. In place of a payload there is an object with '
    '`sha256`, the hash of its text as Postgres writes it, and `bytes`, the length of this text.';
comment on column reveille.action_status.state is
    '`done`, `stopped` or `failed`; `running`: a run goes on; `interrupted`: a run has not ended, and has given no '
    'sign of life for 30 seconds.';
comment on column reveille.action_status.matching is
    'Of a run: the number of jobs that passed the filter when they were counted; null: they were not counted.';
comment on column reveille.action_status.done is
    'Of a run: the number of changed jobs, exact even after a crash. Null: a single change.';
comment on column reveille.action_status.requested is
    'Of a run: the number of running jobs among these, whose handlers were asked to stop.';
comment on column reveille.action_status.passed_over is
    'Of a run: the number of jobs that were not touched, because they changed meanwhile or another session has locked '
    'them.';
comment on column reveille.action_status.left_over is
    'Of a run: the number of jobs that stay dead because live jobs hold their unique keys, or that an edit leaves '
    'because their payloads are encrypted, and the new one is not.';
comment on column reveille.action_status.refused is 'Of a run: the number of jobs that the server refused to change.';
comment on column reveille.action_status.highest_id is
    'Of a run: the highest id at its start. Jobs with higher ids came later, and are not touched.';
comment on column reveille.action_status.seen_at is 'The last sign of life of a run.';
comment on column reveille.action_status.stop_requested_at is 'The time at which somebody asked the run to stop.';
comment on column reveille.action_status.ended_at is
    'The end; null while a run goes on, and after an interruption.';
comment on column reveille.action_status.error is 'The error that ended a run.';

insert into reveille.chores (name) values ('actions');
