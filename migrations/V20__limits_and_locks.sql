-- Limits are exact from the moment they are set, and nobody but workers can hold up claims under limits, or a worker
-- that goes to sleep: the locks that advisory ones were taken for are on rows and tables that only workers may touch.

alter table reveille.queues add column limited_since timestamptz;
comment on column reveille.queues.limited_since is
    'Since when it has had limits without a break, set by itself; null: it has none.';

create table reveille.limits (
    queue               text primary key,
    counted_for         timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on table reveille.limits is
    'Queues whose running jobs have been counted for their limits. A claim under limits locks its queue''s row, so '
    'that one claims at a time.';
comment on column reveille.limits.queue is 'The queue.';
comment on column reveille.limits.counted_for is
    'For which limits what runs has been counted: the queue''s limited_since then. While that is another one now, '
    'nothing is claimed.';

create function reveille.note_limits() returns trigger
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- As `limited` says, which is made after this.
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
comment on function reveille.note_limits() is 'Notes since when a queue has had limits.';

create trigger note_limits before insert or update on reveille.queues
    for each row execute function reveille.note_limits();

-- What runs in these may not all have been counted.
update reveille.queues set name = name where limited is not null;

-- What runs is counted by the workers, before the first claim: they see what was claimed meanwhile by those who did not
-- see the limits.
create or replace function reveille.limits_changed() returns trigger
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
    'When the limits of a queue change, its workers look whether more may run.';

-- Who goes to sleep waits for nobody: it takes the settings as they are, and whoever changes them waits for those who
-- are going to sleep.
create or replace function reveille.mark_sleeper() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    select not bell into new.silent from reveille.queues where name = new.queue;
    new.silent := coalesce(new.silent, false);
    -- Whoever enqueues reads the sequence as it is, not as a snapshot shows it. The insert's own lock on the table
    -- keeps reveille.note_nobody_sleeps() from undoing this before the row can be seen.
    perform setval('reveille.somebody_sleeps', 1)
    where pg_sequence_last_value('reveille.somebody_sleeps') is not distinct from 0;
    return new;
end
$$;

create or replace function reveille.note_nobody_sleeps() returns boolean
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- A transaction that has changed anything could be undone, and the sequence not with it; an older snapshot may not
    -- show who sleeps.
    if pg_current_xact_id_if_assigned() is not null or current_setting('transaction_isolation') <> 'read committed'
    then
        return false;
    end if;
    begin
        -- While this is held, nobody goes to sleep; whoever is going to sleep holds a lock that is in its way.
        lock table reveille.sleepers in share mode nowait;
    exception when lock_not_available then
        return false;
    end;
    if exists (select from reveille.sleepers) then
        return false;
    end if;
    perform setval('reveille.somebody_sleeps', 0)
    where pg_sequence_last_value('reveille.somebody_sleeps') is distinct from 0;
    return true;
end
$$;

create or replace function reveille.mark_sleepers() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    changed constant text := case when tg_op = 'DELETE' then old.name else new.name end;
    is_silent constant boolean := tg_op <> 'DELETE' and not new.bell;
begin
    if is_silent = (tg_op <> 'INSERT' and not old.bell) then
        return null;
    end if;
    -- Those who are going to sleep have read the settings as they were: their rows can be seen once this lock is had.
    lock table reveille.sleepers in share row exclusive mode;
    update reveille.sleepers set silent = is_silent where queue = changed and silent <> is_silent;
    return null;
end
$$;

-- At the commit, so that a transaction that stays open holds up no worker.
drop trigger mark_sleepers on reveille.queues;
create constraint trigger mark_sleepers after insert or delete or update of bell on reveille.queues
    deferrable initially deferred
    for each row execute function reveille.mark_sleepers();

alter table reveille.workers add column backend int;
comment on column reveille.workers.backend is
    'The server''s process of its listener, which holds the lock that vouches for it; null: not known, so anybody''s '
    'lock counts.';
comment on column reveille.workers.holds_lock is 'Whether an advisory lock of its listener''s session vouches for it.';
