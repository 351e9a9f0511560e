-- Creates a role for each kind of user, and grants each what it needs and nothing more. Run this as the owner of the
-- tables, who may create roles, and again after each migration. Then, for example: grant reveille_producer to shop;
--
--   reveille_producer  enqueues: reveille.enqueue, plain inserts of the settable columns, COPY. Reads no payload.
--   reveille_worker    works jobs, fires and declares schedules, and enqueues. Changes no settings and no tables.
--   reveille_monitor   reads the views, which show no payload, but the last error of jobs that fail.
--   reveille_admin     reads everything, cancels, retries, purges, pauses, drains and sets queues, stops workers, and
--                      schedules. Changes no tables.
do $$
declare
    role text;
begin
    foreach role in array array['reveille_producer', 'reveille_worker', 'reveille_monitor', 'reveille_admin'] loop
        begin
            execute format('create role %I nologin', role);
        exception when duplicate_object or unique_violation then
            null; -- Roles belong to the whole server: another database has created it.
        end;
    end loop;
end
$$;

grant usage on schema reveille to reveille_producer, reveille_worker, reveille_monitor, reveille_admin;
grant select on reveille.schema_history to reveille_producer, reveille_worker, reveille_monitor, reveille_admin;
-- By default, every role may execute a function.
revoke execute on all functions in schema reveille from public;
-- The checks of reveille.jobs call it with the rights of the role that writes a row.
grant execute on function reveille.check_job(
    text, text, jsonb, smallint, int, int, int, timestamptz, bigint, timestamptz, timestamptz, text, text, text,
    interval, text[], jsonb, jsonb
) to public;
-- The views call these. They refuse a role that may read none of the views.
grant execute on function reveille.reads_any(text[]), reveille.held_jobs(), reveille.dead_groups() to public;
-- The insert trigger calls it with the rights of the role that inserts.
grant execute on function reveille.somebody_may_sleep() to public;

grant execute on function
    reveille.enqueue(
        text, jsonb, text, interval, timestamptz, bigint, bigint, interval, text, text, text, text, text[], jsonb,
        bigint
    ),
    reveille.replace_waiting(text, text, jsonb, text[], jsonb, timestamptz), reveille.hold_unique_key(bigint, interval),
    reveille.period_holder(text, text), reveille.live_holder(text, text)
to reveille_producer, reveille_worker, reveille_admin;
grant
    insert (
        kind, payload, queue, priority, max_attempts, available_at, timeout, unique_key, unique_until, key, tags,
        metadata, parent_id
    )
    on reveille.jobs to reveille_producer;
-- An insert with a unique key reads these columns, and returns the id.
grant select (id, kind, unique_key) on reveille.jobs to reveille_producer;

grant select, insert, update, delete
    on reveille.jobs, reveille.dead_jobs, reveille.finished_jobs, reveille.workers, reveille.sleepers,
        reveille.counters, reveille.rates
    to reveille_worker;
-- To workers alone: a role that may lock these rows can hold up the claims of limited queues.
grant select, insert, update on reveille.limits to reveille_worker;
grant select on reveille.queues to reveille_worker;
-- Locking a row takes the privilege `update`.
grant select, insert, update, delete on reveille.ends to reveille_worker, reveille_admin;
-- A worker fires schedules, and declares the schedules of its code.
grant select, insert, update on reveille.schedules to reveille_worker;
grant select, insert, update, delete on reveille.schedule_declarations to reveille_worker;
grant execute on function
    reveille.schedule(
        text, text, text, interval, text, jsonb, text, bigint, bigint, interval, text, text[], jsonb, text, bigint
    )
to reveille_worker, reveille_admin;
-- Upkeep locks and deletes the keys whose period is over.
grant select, update, delete on reveille.unique_periods to reveille_worker, reveille_admin;
-- A producer that is to wait for its jobs' ends needs it too. Then it can ask for the result and errors of any job.
grant execute on function reveille.await(bigint) to reveille_worker, reveille_admin;
grant execute on function reveille.ring(text[]), reveille.can_be_sent(text), reveille.note_nobody_sleeps(),
    reveille.truncate_finished_jobs(), reveille.pass_given_ids(), reveille.fresh_job_id(),
    reveille.analyze_unknown_tables()
to reveille_worker, reveille_admin;
-- Upkeep locks a chore's row while it does the chore. No other role may: its lock would keep the chore from being done.
grant select, update on reveille.chores to reveille_worker, reveille_admin;
grant execute on function
    reveille.tell_head(text, smallint, timestamptz, bigint), reveille.told_head(text),
    reveille.complete_in(bigint, bigint, int, timestamptz, double precision),
    reveille.isolate_job(bigint, boolean), reveille.bury_unclaimed(bigint, text, text, boolean)
to reveille_worker;
grant select, insert, update, delete on reveille.passed_over to reveille_worker;

grant select
    on reveille.known_queues, reveille.queue_stats, reveille.running_jobs, reveille.failing_jobs,
        reveille.dead_jobs_overview, reveille.worker_status, reveille.throughput, reveille.queue_limits,
        reveille.queue_totals, reveille.schedule_status, reveille.passed_over_jobs
    to reveille_monitor, reveille_admin;
-- For the estimates of queue_stats: the planner's statistics show a role only columns that it may read.
grant select (queue, available_at) on reveille.jobs to reveille_monitor;

grant select, insert, update, delete
    on reveille.jobs, reveille.dead_jobs, reveille.finished_jobs, reveille.queues, reveille.counters, reveille.rates
    to reveille_admin;
-- `reveille listen` registers as a worker without slots.
grant select, insert, update, delete on reveille.workers, reveille.sleepers to reveille_admin;
grant execute on function reveille.cancel(bigint), reveille.retry(bigint), reveille.pause(text), reveille.resume(text),
    reveille.stop_worker(bigint)
to reveille_admin;
grant select, insert, update, delete on reveille.schedules, reveille.schedule_declarations to reveille_admin;
grant execute on function
    reveille.unschedule(text), reveille.pause_schedule(text), reveille.resume_schedule(text),
    reveille.trigger_schedule(text)
to reveille_admin;
-- From PostgreSQL 17 on, workers may vacuum the tables that they churn. Before, only autovacuum and the tables' owner
-- vacuum them.
do $$
begin
    if current_setting('server_version_num')::int >= 170000 then
        grant maintain on
            reveille.jobs, reveille.dead_jobs, reveille.workers, reveille.sleepers, reveille.counters, reveille.totals,
            reveille.rates, reveille.chores, reveille.unique_periods, reveille.schedules
        to reveille_worker;
    end if;
end
$$;
