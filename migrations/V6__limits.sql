-- Limits of queues: the number of jobs that run at once, the number that start in a period, and the order of jobs.

create table reveille.limits (
    queue       text        primary key,
    counted_for timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on table reveille.limits is
    'Queues with limits whose running jobs have been counted. A claim from such a queue locks the queue''s row here, '
    'so that one worker claims at a time.';
comment on column reveille.limits.queue is 'The queue.';
comment on column reveille.limits.counted_for is
    'The queue''s limited_since at the time of the count. While the queue''s limited_since differs from this value, '
    'workers claim no job of the queue.';

create table reveille.rates (
    queue   text        not null,
    key     text        not null,
    next_at timestamptz not null,
    primary key (queue, key)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table reveille.rates is
    'The present use of the rates, one row per queue or key. A queue or key without a row may start its whole burst.';
comment on column reveille.rates.queue is 'The queue.';
comment on column reveille.rates.key is 'The key; empty for the queue as a whole.';
comment on column reveille.rates.next_at is
    'The time at which the next job would start if all jobs had started at an even pace. The next job may start before '
    'this time, at most by the length of the burst.';

create function reveille.note_limits() returns trigger
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- This condition repeats that of the generated column `limited`, which Postgres computes only after this trigger.
    if not new.ordered
        and coalesce(new.max_running, new.max_running_per_key, new.rate_limit, new.rate_per_key) is null
    then
        new.limited_since := null;
    elsif tg_op = 'UPDATE' and old.name = new.name and old.limited_since is not null then
        new.limited_since := old.limited_since;
    else
        new.limited_since := clock_timestamp();
    end if;
    return new;
end
$$;
comment on function reveille.note_limits() is 'Notes the time from which a queue has had limits or an order.';

create trigger note_limits before insert or update on reveille.queues
    for each row execute function reveille.note_limits();

-- This function only wakes workers. They count the queue's running jobs before the first claim under the new limits. A
-- count in this function would miss the jobs of claims that are under way and do not see the limits yet.
create function reveille.limits_changed() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'INSERT' and new.limited is null or tg_op = 'DELETE' and old.limited is null then
        return null;
    end if;
    perform reveille.ring(array[case when tg_op = 'DELETE' then old.name else new.name end]);
    return null;
end
$$;
comment on function reveille.limits_changed() is
    'Wakes the workers of a queue whose limits change, since more jobs may start.';

create trigger limits_changed
    after insert or delete or update of max_running, max_running_per_key, rate_limit, rate_period, rate_burst,
    rate_per_key, ordered
    on reveille.queues for each row execute function reveille.limits_changed();
