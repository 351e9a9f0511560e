-- Views of what links jobs, and of their steps, for roles that read no table.

create view reveille.job_dependencies as
select waiter, on_job, label, fires_on, on_dead, state from reveille.dependencies;
comment on view reveille.job_dependencies is
    'Which job waits for which, and for which outcome. Give a query a condition on `waiter` or `on_job`.';
do $$
declare
    viewed record;
begin
    for viewed in
        select
            attributes.attname as name, col_description('reveille.dependencies'::regclass, originals.attnum) as comment
        from pg_attribute as attributes
        join pg_attribute as originals
            on originals.attrelid = 'reveille.dependencies'::regclass and originals.attname = attributes.attname
        where attributes.attrelid = 'reveille.job_dependencies'::regclass and attributes.attnum > 0
    loop
        execute format('comment on column reveille.job_dependencies.%I is %L', viewed.name, viewed.comment);
    end loop;
end
$$;

create view reveille.job_steps as
select job, name, kind, until, outcome, attempt, recorded_at from reveille.steps;
comment on view reveille.job_steps is
    'The steps, sleeps and waits that the handlers of jobs have recorded, without their values. Give a query a '
    'condition on `job`.';
do $$
declare
    viewed record;
begin
    for viewed in
        select attributes.attname as name, col_description('reveille.steps'::regclass, originals.attnum) as comment
        from pg_attribute as attributes
        join pg_attribute as originals
            on originals.attrelid = 'reveille.steps'::regclass and originals.attname = attributes.attname
        where attributes.attrelid = 'reveille.job_steps'::regclass and attributes.attnum > 0
    loop
        execute format('comment on column reveille.job_steps.%I is %L', viewed.name, viewed.comment);
    end loop;
end
$$;

-- The views of blocked jobs look at 1,000 prerequisites of a job at most.
create or replace view reveille.blocked_jobs_overview as
select
    blocked.id, blocked.queue, blocked.kind, blocked.workflow, members.name, blocked.needs,
    array(
        select first.on_job
        from (
            select on_job, label, state from reveille.dependencies where waiter = blocked.id order by label limit 1000
        ) as first
        where first.state in ('open', 'held')
        order by first.label
        limit 10
    ) as waits_for,
    exists (
        select
        from (select state from reveille.dependencies where waiter = blocked.id order by label limit 1000) as first
        where first.state = 'held'
    ) as is_held,
    blocked.created_at, blocked.priority, blocked.max_attempts, blocked.key, blocked.tags, blocked.available_at,
    blocked.delay, blocked.timeout, blocked.parent_id, blocked.schedule_id
from reveille.blocked_jobs as blocked
left join reveille.workflow_jobs as members on members.job = blocked.id;
comment on column reveille.blocked_jobs_overview.waits_for is
    'Up to ten of the jobs that the job still waits for, among the first 1,000 by label.';
comment on column reveille.blocked_jobs_overview.is_held is
    'True if one of the first 1,000 prerequisites by label is dead and holds the job up.';

-- Finds the changes of one job or workflow. A filter can be too long for an index.
create index actions_by_target on reveille.actions (target, id) where not (target ? 'filter');
comment on column reveille.action_status.action is
    'The action: `retry`, `cancel`, `revive`, `purge`, `run_again`, `edit`, `enqueue`, `pause`, `resume`, `set_queue`, '
    '`remove_queue`, `stop_worker`, `set_slots`, `schedule`, `unschedule`, `pause_schedule`, `resume_schedule`, '
    '`trigger_schedule`, `cancel_workflow`, `retry_workflow` or `prune`.';
