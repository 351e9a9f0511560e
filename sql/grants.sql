-- Roles for those who use Reveille, each allowed what it needs and nothing more. Run it as the owner of the tables, who may
-- create roles; again after each migration. Then, for example: grant reveille_producer to shop;
--
--   reveille_producer  enqueues: reveille.enqueue, plain inserts of what a job may be given, COPY. Reads no payload.
--   reveille_worker    works jobs, fires and declares schedules, and may enqueue further jobs. Changes no settings, no tables.
--   reveille_monitor   reads the views, which show no payload, but the last error of jobs that fail.
--   reveille_admin     looks at everything, cancels, retries, purges, pauses, drains and sets queues, stops workers,
--                      and schedules. Changes no tables.
do $$
declare
    role text;
begin
    foreach role in array array['reveille_producer', 'reveille_worker', 'reveille_monitor', 'reveille_admin'] loop
        begin
            execute format('create role %I nologin', role);
        exception when duplicate_object or unique_violation then
            null; -- Roles are the whole server's.
        end;
    end loop;
end
$$;

grant usage on schema reveille to reveille_producer, reveille_worker, reveille_monitor, reveille_admin;
grant select on reveille.schema_history to reveille_producer, reveille_worker, reveille_monitor, reveille_admin;
-- Functions are everybody's unless this is said.
revoke execute on all functions in schema reveille from public;
-- What the table of jobs asks of each row, whoever writes it.
grant execute on function reveille.check_job(
    text, text, jsonb, smallint, int, int, int, timestamptz, bigint, timestamptz, timestamptz, text, text, text, interval, text[], jsonb, jsonb
) to public;
-- What the views ask; who may read none of them is refused.
grant execute on function reveille.reads_any(text[]), reveille.held_jobs(), reveille.dead_groups() to public;
-- What its trigger asks before it asks whom to ring for, whoever inserts.
grant execute on function reveille.somebody_may_sleep() to public;

grant execute on function
    reveille.enqueue(text, jsonb, text, interval, timestamptz, bigint, bigint, interval, text, text, text, text, text[], jsonb, bigint),
    reveille.replace_waiting(text, text, jsonb, text[], jsonb, timestamptz), reveille.hold_unique_key(bigint, interval),
    reveille.period_holder(text, text), reveille.live_holder(text, text)
to reveille_producer, reveille_worker, reveille_admin;
grant insert (kind, payload, queue, priority, max_attempts, available_at, timeout, unique_key, unique_until, key, tags, metadata, parent_id)
    on reveille.jobs to reveille_producer;
-- What an insert with a unique key asks for, and what it answers.
grant select (id, kind, unique_key) on reveille.jobs to reveille_producer;

grant select, insert, update, delete
    on reveille.jobs, reveille.dead_jobs, reveille.finished_jobs, reveille.workers, reveille.sleepers, reveille.counters, reveille.rates
    to reveille_worker;
-- Nobody else: whoever may lock these rows can hold up the claims of limited queues.
grant select, insert, update on reveille.limits to reveille_worker;
grant select on reveille.queues to reveille_worker;
-- To lock a row takes `update`.
grant select, insert, update, delete on reveille.ends to reveille_worker, reveille_admin;
-- A worker fires schedules, and declares those of its code.
grant select, insert, update on reveille.schedules to reveille_worker;
grant select, insert, update, delete on reveille.schedule_declarations to reveille_worker;
grant execute on function
    reveille.schedule(text, text, text, interval, text, jsonb, text, bigint, bigint, interval, text, text[], jsonb, text, bigint)
to reveille_worker, reveille_admin;
-- To give up the keys whose period is over is upkeep; `update` is what it takes to lock a row.
grant select, update, delete on reveille.unique_periods to reveille_worker, reveille_admin;
-- A producer that is to wait for its jobs' ends needs it too, and can ask for any job's result and errors then.
grant execute on function reveille.await(bigint) to reveille_worker, reveille_admin;
grant execute on function reveille.ring(text[]), reveille.can_be_sent(text), reveille.note_nobody_sleeps(),
    reveille.truncate_finished_jobs(), reveille.pass_given_ids(), reveille.fresh_job_id(), reveille.analyze_unknown_tables()
to reveille_worker, reveille_admin;
-- Upkeep locks the row of what it is at; nobody else may, who could keep it from being done.
grant select, update on reveille.chores to reveille_worker, reveille_admin;
grant execute on function
    reveille.tell_head(text, smallint, timestamptz, bigint), reveille.told_head(text),
    reveille.complete_in(bigint, bigint, int, timestamptz, double precision),
    reveille.isolate_job(bigint, boolean), reveille.bury_unclaimed(bigint, text, text, boolean)
to reveille_worker;
grant select, insert, update, delete on reveille.passed_over to reveille_worker;

grant select
    on reveille.known_queues, reveille.queue_stats, reveille.running_jobs, reveille.failing_jobs, reveille.dead_jobs_overview,
        reveille.worker_status, reveille.throughput, reveille.queue_limits, reveille.queue_totals, reveille.schedule_status,
        reveille.passed_over_jobs
    to reveille_monitor, reveille_admin;
-- For the estimates of queue_stats: the planner's statistics show only what one may read.
grant select (queue, available_at) on reveille.jobs to reveille_monitor;

grant select, insert, update, delete on reveille.jobs, reveille.dead_jobs, reveille.finished_jobs, reveille.queues, reveille.counters, reveille.rates
    to reveille_admin;
-- `reveille listen` introduces itself as a worker without slots.
grant select, insert, update, delete on reveille.workers, reveille.sleepers to reveille_admin;
grant execute on function reveille.cancel(bigint), reveille.retry(bigint), reveille.pause(text), reveille.resume(text),
    reveille.stop_worker(bigint)
to reveille_admin;
grant select, insert, update, delete on reveille.schedules, reveille.schedule_declarations to reveille_admin;
grant execute on function
    reveille.unschedule(text), reveille.pause_schedule(text), reveille.resume_schedule(text), reveille.trigger_schedule(text)
to reveille_admin;
-- Where the server knows this privilege, workers vacuum what they churn; else it is left to autovacuum, unless they are the tables' owner.
do $$
begin
    if current_setting('server_version_num')::int >= 170000 then
        grant maintain on
            reveille.jobs, reveille.dead_jobs, reveille.workers, reveille.sleepers, reveille.counters, reveille.totals, reveille.rates,
            reveille.chores, reveille.unique_periods, reveille.schedules
        to reveille_worker;
    end if;
end
$$;
