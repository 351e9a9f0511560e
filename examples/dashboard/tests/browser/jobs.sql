-- Jobs in all states, as workers leave them, and what they have counted.
insert into reveille.queues (name, max_running_per_key) values ('billing', 1);
insert into reveille.workers (id, host, pid, queues, slots, queue_slots, version, applies_ends)
values (7001, 'web-1', 4242, array['mail', 'default'], 12, array[8, 4], '0.1.0', true);
insert into reveille.jobs (queue, kind, payload, key, tags, available_at, priority)
select
    (array['mail', 'default', 'billing'])[1 + n % 3], (array['send_welcome', 'thumbnail', 'charge_card'])[1 + n % 3],
    jsonb_build_object('user_id', n), case when n % 3 = 2 then 'customer-' || n % 7 end,
    case when n % 5 = 0 then array['import', 'campaign-12'] end,
    now() + make_interval(mins => case when n % 4 = 0 then n else -1 end), 1 + n % 3
from generate_series(1, 60) as n;
insert into reveille.jobs (kind, payload, available_at) values ('delayed_one', '{"n": 1}', now() + interval '3 hours');
insert into reveille.jobs (queue, kind, payload, attempts, failures, max_attempts, errors, available_at)
select
    'mail', 'call_webhook', jsonb_build_object('url', 'https://partner.example/' || n), 2, 2, 5,
    jsonb_build_array(
        jsonb_build_object('at', now() - interval '5 minutes', 'attempt', 1, 'worker', 7001, 'reason', 'failed',
            'error', 'https://partner.example answered 503 Service Unavailable'),
        jsonb_build_object('at', now() - interval '1 minute', 'attempt', 2, 'worker', 7001, 'reason', 'timed_out',
            'error', 'the attempt took longer than 30 s')
    ),
    now() + interval '4 minutes'
from generate_series(1, 6) as n;
update reveille.jobs
set reserved_at = now() - interval '12 seconds', reserved_by = 7001, attempts = 1, progress = '{"percent": 40}'
where id in (select id from reveille.jobs where queue = 'mail' and failures = 0 order by id limit 4);
insert into reveille.dead_jobs (
    id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, errors, reason,
    worker, run_seconds, wait_seconds, finished_at
)
select
    100000 + n, 'mail', (array['send_welcome', 'call_webhook'])[1 + n % 2], jsonb_build_object('user_id', n), 2, 3, 3,
    3, now() - interval '2 hours', now() - interval '3 hours',
    jsonb_build_array(jsonb_build_object('at', now() - make_interval(mins => n), 'attempt', 3, 'worker', 7001,
        'reason', 'failed', 'error', (array['451 greylisted', E'no such mailbox\n  at smtp.rs:42'])[1 + n % 2])),
    (array['failed', 'permanent'])[1 + n % 2], 7001, 0.4, 0.01, now() - make_interval(mins => n * 7)
from generate_series(1, 24) as n;
insert into reveille.finished_jobs (
    day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, outcome,
    result, worker, run_seconds, wait_seconds, finished_at, metadata
)
select
    extract(epoch from now())::bigint / 86400 % 32, 200000 + n, 'mail', 'send_welcome',
    jsonb_build_object('user_id', n), 2, 1, 0, 20, now() - interval '1 minute', now() - interval '1 minute',
    case when n % 9 = 0 then 'cancelled' else 'completed' end,
    case when n % 9 <> 0 then '{"message_id": "<abc@mail>"}'::jsonb end, 7001, 0.05 * (1 + n % 5), 0.002, now(),
    '{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}'
from generate_series(1, 40) as n;
insert into reveille.counters (
    queue, started_at, worker, completed, failed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
)
select
    queue, date_trunc('minute', now()) - make_interval(mins => n), 0, 40 + (n * 7) % 23, (n * 3) % 4, 0.3, 0.2, 6, 1.4
from generate_series(6, 3000) as n, unnest(array['mail', 'default', 'billing']) as queue;
select reveille.schedule(name => 'nightly', kind => 'build_report', cron => '0 3 * * *', time_zone => 'Europe/Berlin');
select reveille.schedule(name => 'often', kind => 'refresh', every => interval '5 minutes');
-- A workflow that is stalled: its job `load` is dead. One that runs, and one of more jobs than are drawn.
select reveille.enqueue_workflow('onboard', '[
    {"name": "extract", "kind": "extract"},
    {"name": "load", "kind": "load", "after": ["extract"]},
    {"name": "undo", "kind": "undo", "after": ["load"], "fires_on": "cancelled"},
    {"name": "index", "kind": "index", "after": ["load"]},
    {"name": "report", "kind": "report", "after": [
        {"name": "extract", "fires_on": "any"}, {"name": "index", "fires_on": "any"}]}
]', unique_key => 'customer 42', input => '{"customer": 42, "plan": "team"}');
select reveille.enqueue_workflow('nightly', '[
    {"name": "orders", "kind": "extract"}, {"name": "stock", "kind": "extract", "delay": "1 hour"},
    {"name": "join", "kind": "join", "after": ["orders", "stock"]},
    {"name": "alarm", "kind": "alarm", "after": ["join"], "fires_on": "dead"}
]');
select reveille.enqueue_workflow('invoices', (
    select jsonb_agg(jsonb_build_object('name', n::text, 'kind', 'invoice')) from generate_series(1, 240) as n
));
with ended as (
    delete from reveille.jobs where id = (select job from reveille.workflow_jobs where name = 'extract') returning *
)
insert into reveille.finished_jobs (
    day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, outcome
)
select
    extract(epoch from now())::bigint / 86400 % 32, id, queue, kind, payload, priority, 1, 0, 20, now(), now(),
    'completed'
from ended;
insert into reveille.linked_ends (job, outcome, result, workflow)
select job, 'completed', '{"rows": 1200}', workflow from reveille.workflow_jobs where name = 'extract';
select reveille.apply_linked_ends();
with ended as (
    delete from reveille.jobs where id = (select job from reveille.workflow_jobs where name = 'load') returning *
)
insert into reveille.dead_jobs (
    id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, errors, reason,
    linked
)
select
    id, queue, kind, payload, priority, 1, 1, 1, now(), now(),
    jsonb_build_array(jsonb_build_object('at', now(), 'attempt', 1, 'reason', 'failed', 'error', 'row 7 has no id')),
    'failed', true
from ended;
select reveille.note_end(job, 'dead') from reveille.workflow_jobs where name = 'load';
select reveille.apply_linked_ends();
-- The job that is skipped.
select reveille.apply_linked_ends();
-- A job that has recorded steps, and waits for an event.
insert into reveille.jobs (kind, available_at) values ('checkout', now() + interval '30 days');
insert into reveille.steps (job, name, kind, value, until, outcome, attempt, reserved_at)
select
    jobs.id, recorded.name, recorded.kind, recorded.value, recorded.until, recorded.outcome, 1, now()
from reveille.jobs
cross join (
    values
        ('charge', 'step', '{"charge": "ch_1"}'::jsonb, null::timestamptz, 'done'),
        ('signed:7', 'wait', null, now() + interval '30 days', null)
) as recorded (name, kind, value, until, outcome)
where jobs.kind = 'checkout';
-- A change of many jobs that is under way.
insert into reveille.actions (actor, source, action, target, matching, done, highest_id)
values ('ada', 'dashboard', 'cancel', '{"filter": {"queue": "billing", "kind": "charge_card"}}', 20000, 7000, 9000);
