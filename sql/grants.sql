-- Creates the roles of Reveille, and grants each role the privileges that it needs and no more. Run this file as the
-- owner of the tables, who must be allowed to create roles unless the roles exist. Run it again after each migration.
-- Then grant the roles to your users, for example: grant reveille_producer to shop;
--
--   reveille_producer  enqueues: reveille.enqueue, reveille.enqueue_json, workflows, plain inserts of the settable
--                      columns, COPY. Reads no payload.
--   reveille_worker    works jobs, fires and declares schedules, and enqueues. Changes no settings and no tables.
--   reveille_monitor   reads the views, which show no payload, but the last error of jobs that fail.
--   reveille_admin     reads everything; cancels, retries and purges jobs; pauses queues, kinds and keys; drains and
--                      sets queues; stops workers; sets schedules. Changes no tables.
do $$
declare
    role text;
begin
    foreach role in array array['reveille_producer', 'reveille_worker', 'reveille_monitor', 'reveille_admin'] loop
        -- This file, or another database of this server, may have created the role.
        continue when exists (select from pg_catalog.pg_roles where rolname = role);
        begin
            execute format('create role %I nologin', role);
        exception when duplicate_object or unique_violation then
            null; -- Another session has created the role meanwhile.
        end;
    end loop;
end
$$;

grant usage on schema reveille to reveille_producer, reveille_worker, reveille_monitor, reveille_admin;
grant select on reveille.schema_history to reveille_producer, reveille_worker, reveille_monitor, reveille_admin;
-- By default, every role may execute every function.
revoke execute on all functions in schema reveille from public;
-- The triggers of reveille.jobs call check_job with the rights of the role that writes a row.
grant execute on function reveille.check_job(
    text, text, jsonb, smallint, int, int, int, timestamptz, bigint, timestamptz, timestamptz, text, text, text,
    interval, text[], jsonb, jsonb
) to public;
-- The views call these functions. The functions that read tables refuse a role that may read none of the views.
grant execute on function reveille.reads_any(text[]), reveille.held_jobs(), reveille.dead_groups(),
    reveille.expected_waiting(), reveille.histogram_quantile(bigint[], double precision), reveille.histogram_bounds()
to public;
-- The insert trigger calls somebody_may_sleep with the rights of the role that inserts.
grant execute on function reveille.somebody_may_sleep() to public;

grant execute on function
    reveille.enqueue(
        text, jsonb, text, interval, timestamptz, bigint, bigint, interval, text, text, text, text, text[], jsonb,
        bigint, bigint
    ),
    reveille.replace_waiting(text, text, jsonb, text[], jsonb, timestamptz), reveille.hold_unique_key(bigint, interval),
    reveille.period_holder(text, text), reveille.live_holder(text, text), reveille.enqueue_json(jsonb),
    reveille.read_json_jobs(jsonb, boolean), reveille.refusal_of_json_jobs(jsonb, bigint),
    reveille.refusal_of_json_job(jsonb, bigint),
    reveille.enqueue_after(
        bigint[], text, jsonb, text, text, text, text, interval, timestamptz, bigint, bigint, interval, text, text[],
        jsonb, bigint, bigint
    ),
    reveille.enqueue_workflow(text, jsonb, text, jsonb, bigint),
    reveille.enqueue_workflow_parts(text, jsonb[], text, jsonb, bigint, boolean),
    reveille.open_workflow(text, text, jsonb, bigint, bigint), reveille.add_to_workflow(bigint, jsonb),
    reveille.seal_workflow(bigint)
to reveille_producer, reveille_worker, reveille_admin;
grant
    insert (
        kind, payload, queue, priority, max_attempts, available_at, timeout, unique_key, unique_until, key, tags,
        metadata, parent_id
    )
    on reveille.jobs to reveille_producer;
-- An insert with a unique key reads these columns, and returns the job's id.
grant select (id, kind, unique_key) on reveille.jobs to reveille_producer;

grant select, insert, update, delete
    on reveille.jobs, reveille.dead_jobs, reveille.finished_jobs, reveille.workers, reveille.sleepers,
        reveille.counters, reveille.kind_counters, reveille.rates
    to reveille_worker;
-- Only workers get this privilege: a role that may lock these rows can hold up the claims of limited queues.
grant select, insert, update on reveille.limits to reveille_worker;
-- Workers record steps, pair events with waits, and delete both. Upkeep by an administrator deletes them, too.
grant select, insert, update, delete on reveille.steps, reveille.waits, reveille.events
    to reveille_worker, reveille_admin;
grant execute on function
    reveille.forget_steps(bigint[]), reveille.emit_ends(bigint[]),
    reveille.run_child(bigint, bigint, int, timestamptz, text, jsonb)
to reveille_worker, reveille_admin;
-- A role that enqueues may emit events, and reads none.
grant execute on function reveille.emit(text, jsonb) to reveille_producer, reveille_worker, reveille_admin;
grant insert (name, payload) on reveille.events to reveille_producer;
grant select on reveille.queues, reveille.pauses to reveille_worker;
-- Workers and admins lock rows of this table, which needs the privilege `update`.
grant select, insert, update, delete on reveille.ends to reveille_worker, reveille_admin;
-- A worker applies the ends of linked jobs, and an administrator cancels and revives them.
grant select, insert, update, delete
    on reveille.blocked_jobs, reveille.dependencies, reveille.linked_ends, reveille.workflow_jobs, reveille.workflows
    to reveille_worker, reveille_admin;
grant execute on function
    reveille.note_end(bigint, text, boolean), reveille.tell_of_ends(), reveille.end_blocked(bigint[], text),
    reveille.apply_linked_ends(int), reveille.linked_work_waits(), reveille.dependency_state(text, text, text),
    reveille.settle_blocked(bigint[]), reveille.start_blocked(bigint[]), reveille.update_workflows(bigint[]),
    reveille.cancel_members(int), reveille.inputs(bigint, text, int, text), reveille.cancel(bigint),
    reveille.cancel_live(bigint[]), reveille.move_blocked(bigint[], text), reveille.cancel_or_bury(bigint[]),
    reveille.bury_blocked(bigint, text, boolean), reveille.bury_unclaimed(bigint, text, text, boolean),
    reveille.make_due(bigint[]), reveille.says_nothing_of_a_row(text)
to reveille_worker, reveille_admin;
-- A worker fires schedules, and declares the schedules of its code.
grant select, insert, update on reveille.schedules to reveille_worker;
grant select, insert, update, delete on reveille.schedule_declarations to reveille_worker;
grant execute on function
    reveille.schedule(
        text, text, text, interval, text, jsonb, text, bigint, bigint, interval, text, text[], jsonb, text, bigint
    )
to reveille_worker, reveille_admin;
-- Upkeep locks and deletes the unique keys whose period is over.
grant select, update, delete on reveille.unique_periods to reveille_worker, reveille_admin;
-- Grant this also to a producer that awaits its jobs. The producer can then read the result and errors of any job.
grant execute on function reveille.await(bigint) to reveille_worker, reveille_admin;
grant execute on function reveille.ring(text[]), reveille.can_be_sent(text), reveille.pause_of(text, text, text),
    reveille.unpark(bigint), reveille.note_nobody_sleeps(),
    reveille.truncate_finished_jobs(), reveille.pass_given_ids(), reveille.fresh_job_id(),
    reveille.analyze_unknown_tables(), reveille.sum_of_histograms(bigint[], bigint[])
to reveille_worker, reveille_admin;
-- Upkeep locks a chore's row while it does the chore. No other role gets these privileges, since its locks could keep
-- the chores from being done.
grant select, update on reveille.chores to reveille_worker, reveille_admin;
-- Upkeep deletes the record of old actions. A worker does not read who did what.
grant select (id, started_at), delete on reveille.actions to reveille_worker;
grant execute on function
    reveille.tell_head(text, smallint, timestamptz, bigint), reveille.told_head(text),
    reveille.complete_in(bigint, bigint, int, timestamptz, double precision),
    reveille.isolate_job(bigint, boolean)
to reveille_worker;
grant select, insert, update, delete on reveille.passed_over to reveille_worker;

grant select
    on reveille.known_queues, reveille.queue_stats, reveille.running_jobs, reveille.waiting_jobs, reveille.job_list,
        reveille.dead_job_list, reveille.finished_job_list, reveille.failing_jobs, reveille.dead_jobs_overview,
        reveille.worker_status, reveille.throughput, reveille.queue_limits, reveille.queue_totals,
        reveille.kind_totals, reveille.kind_stats, reveille.schedule_status, reveille.passed_over_jobs,
        reveille.action_status, reveille.pause_status, reveille.workflow_status, reveille.workflow_job_status,
        reveille.blocked_jobs_overview, reveille.job_dependencies, reveille.job_steps
    to reveille_monitor, reveille_admin;
-- expected_waiting and queue_stats need this for their estimates: the planner's statistics show a role only the columns
-- that it may read.
grant select (queue, available_at) on reveille.jobs to reveille_monitor;
-- Lists of jobs show which jobs are stuck, and leave out jobs past their queue's retention.
grant select (id, stuck_jobs, stuck_since) on reveille.workers to reveille_monitor;
grant select on reveille.queues to reveille_monitor;
-- Pages of queues and kinds show how many attempts ended, by time.
grant select on reveille.counters, reveille.kind_counters to reveille_monitor;

grant select, insert, update, delete
    on reveille.jobs, reveille.dead_jobs, reveille.finished_jobs, reveille.queues, reveille.counters,
        reveille.kind_counters, reveille.rates
    to reveille_admin;
-- An administrator's changes are recorded, and upkeep deletes the record of old ones.
grant select, insert, update, delete on reveille.actions to reveille_admin;
-- A pause of a kind or a key is not changed, but ended.
grant select, insert, delete on reveille.pauses to reveille_admin;
-- Removing a queue removes its totals.
grant select, delete on reveille.totals to reveille_admin;
-- `reveille listen` registers as a worker without slots.
grant select, insert, update, delete on reveille.workers, reveille.sleepers to reveille_admin;
grant execute on function reveille.retry(bigint, boolean), reveille.cancel_workflow(bigint),
    reveille.retry_workflow(bigint, boolean), reveille.pause(text, text, text),
    reveille.resume(text, text, text),
    reveille.stop_worker(bigint), reveille.set_slots(text, int, bigint)
to reveille_admin;
grant select, insert, update, delete on reveille.schedules, reveille.schedule_declarations to reveille_admin;
grant execute on function
    reveille.unschedule(text), reveille.pause_schedule(text), reveille.resume_schedule(text),
    reveille.trigger_schedule(text)
to reveille_admin;
-- From PostgreSQL 17 on, workers may vacuum the tables in which they leave dead rows. On earlier versions, only
-- autovacuum and the tables' owner vacuum them.
do $$
begin
    if current_setting('server_version_num')::int >= 170000 then
        grant maintain on
            reveille.jobs, reveille.dead_jobs, reveille.workers, reveille.sleepers, reveille.counters, reveille.totals,
            reveille.kind_counters, reveille.rates, reveille.chores, reveille.unique_periods, reveille.schedules,
            reveille.linked_ends, reveille.blocked_jobs, reveille.dependencies, reveille.workflow_jobs,
            reveille.workflows
        to reveille_worker;
    end if;
end
$$;
