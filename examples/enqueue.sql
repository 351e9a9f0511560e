-- Enqueuing from psql, or from any program that speaks SQL: psql "$DATABASE_URL" -f examples/enqueue.sql

-- In the transaction that writes what the job is about.
begin;
create temporary table orders (id bigint generated always as identity, total numeric) on commit drop;
with placed as (insert into orders (total) values (99.90) returning id)
select job.id as job, placed.id as "order"
from placed, reveille.enqueue(kind => 'send_receipt', payload => jsonb_build_object('order', placed.id)) as job;
commit;

-- Later, more urgent, at most one at a time.
select * from reveille.enqueue(
    kind => 'refresh_report', payload => '{"month": "2026-11"}', queue => 'reports', delay => '5 minutes',
    priority => 1, unique_key => '2026-11'
);

-- The same key again: no second job (existed), and the due time put back.
select * from reveille.enqueue(
    kind => 'refresh_report', payload => '{"month": "2026-11", "again": true}', queue => 'reports',
    delay => '10 minutes',
    unique_key => '2026-11', unique_mode => 'debounce'
);

-- A plain insert is as good, also for many at once.
insert into reveille.jobs (kind, payload)
select 'thumbnail', jsonb_build_object('image', n) from generate_series(1, 100) as n;

-- How things stand.
select queue, ready, delayed, running, dead from reveille.queue_stats order by queue;
