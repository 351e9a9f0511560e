-- The bell: an insert notifies the queues on which a worker sleeps.

create sequence reveille.somebody_sleeps as smallint minvalue 0 maxvalue 1;
comment on sequence reveille.somebody_sleeps is
    'Its last value is 0 while nobody sleeps in reveille.sleepers: no enqueue needs to ring.';
grant select on sequence reveille.somebody_sleeps to public;
select setval('reveille.somebody_sleeps', 0);

-- Only for names with other characters than ASCII in databases that are not in UTF-8.
create function reveille.can_be_sent(queue text) returns boolean
    language plpgsql stable
as $$
begin
    if queue operator(pg_catalog.!~) '[^\x01-\x7f]' then
        return true;
    end if;
    perform pg_catalog.convert_to(queue, 'UTF8');
    return true;
exception when character_not_in_repertoire or untranslatable_character then
    return false;
end
$$;
comment on function reveille.can_be_sent(text) is
    'Whether a queue''s name can be told to a worker by NOTIFY. A session to which the server cannot send a '
    'notification in UTF-8 is broken.';

create function reveille.ring(queues text[]) returns void
    language plpgsql volatile
as $$
begin
    if pg_catalog.current_setting('reveille.bell', true) operator(pg_catalog.=) 'off' then
        return;
    end if;
    perform case
        when (select pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.9)
        then pg_catalog.pg_notify('reveille.bell', rung.queue)
    end
    from (select distinct q.queue from pg_catalog.unnest(queues) as q (queue)) as rung
    where (
            exists (select from reveille.sleepers where sleepers.queue operator(pg_catalog.=) rung.queue and not sleepers.silent)
            -- An older snapshot may not show who has gone to sleep meanwhile.
            or (
                pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.<>) 'read committed'
                and not exists (
                    select from reveille.queues as silent where silent.name operator(pg_catalog.=) rung.queue and not silent.bell
                )
            )
        )
        and (pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'UTF8' or reveille.can_be_sent(rung.queue));
end
$$;
comment on function reveille.ring(text[]) is
    'Ring the bell (NOTIFY) for those of these queues that somebody sleeps on, when the transaction commits: for '
    'every statement that makes work possible. `set local reveille.bell = ''off''` silences it.';

-- With its owner's rights, since servers before 17 raise an error where the sequence may not be read. As an expression in the trigger's
-- condition the same question costs more: each statement reads such an expression anew from the catalog's text.
create function reveille.somebody_may_sleep() returns boolean
    language plpgsql stable security definer
as $$
begin
    return (
        pg_catalog.pg_sequence_last_value('reveille.somebody_sleeps'::pg_catalog.regclass) operator(pg_catalog.=) 0::pg_catalog.int8
    ) is not true;
end
$$;
comment on function reveille.somebody_may_sleep() is
    'Whether an insert has to ask whom to ring for: false while nobody sleeps. Whatever the statement''s snapshot '
    'shows.';

-- With its owner's rights, so that whoever may insert need not read who sleeps. It sets no search path, which takes producers several
-- percent: each name, type and operator is qualified instead, and what looks operators up by itself (`is distinct from`, `in`, `between`)
-- is not used.
create function reveille.ring_after_insert() returns trigger
    language plpgsql volatile security definer
as $$
begin
    -- Every enqueue pays for this question while somebody sleeps. Equal notifications of a transaction are folded into one.
    if pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.=) 'read committed' then
        perform case
            when (select pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.9)
            then pg_catalog.pg_notify('reveille.bell', inserted.queue)
        end
        from inserted
        where exists (
                select from reveille.sleepers
                where sleepers.queue operator(pg_catalog.=) inserted.queue and not sleepers.silent
            )
            and (pg_catalog.current_setting('reveille.bell', true) operator(pg_catalog.=) 'off') is not true
            and (pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'UTF8' or reveille.can_be_sent(inserted.queue));
    else
        -- An older snapshot may not show who has gone to sleep meanwhile.
        perform case
            when (select pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.9)
            then pg_catalog.pg_notify('reveille.bell', inserted.queue)
        end
        from inserted
        where (pg_catalog.current_setting('reveille.bell', true) operator(pg_catalog.=) 'off') is not true
            and not exists (
                select from reveille.queues as silent
                where silent.name operator(pg_catalog.=) inserted.queue and not silent.bell
            )
            and (pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'UTF8' or reveille.can_be_sent(inserted.queue));
    end if;
    return null;
end
$$;
comment on function reveille.ring_after_insert() is
    'Rings once for each queue among the new jobs, due or delayed, that somebody sleeps on. `set local reveille.bell '
    '= ''off''` silences it.';

create trigger ring after insert on reveille.jobs
    referencing new table as inserted
    for each statement
    when (reveille.somebody_may_sleep())
    execute function reveille.ring_after_insert();

-- A waiting job that is made due sooner, or moved to another queue, by an update of one's own or by `on conflict do
-- update`. Claims do not touch these columns; of a settlement the condition alone is asked.
create function reveille.ring_after_update() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform reveille.ring(array[new.queue]);
    return null;
end
$$;
comment on function reveille.ring_after_update() is
    'Rings the bell for a waiting job that is made due sooner or moved to another queue.';

create trigger ring_moved
    after update of available_at, queue on reveille.jobs
    for each row
    when (
        new.reserved_at is null and old.reserved_at is null
        and (new.available_at < old.available_at or new.queue <> old.queue)
        and reveille.somebody_may_sleep()
    )
    execute function reveille.ring_after_update();

-- Who goes to sleep waits for nobody: it takes the settings as they are, and whoever changes them waits for those who
-- are going to sleep.
create function reveille.mark_sleeper() returns trigger
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
comment on function reveille.mark_sleeper() is
    'Says that somebody sleeps, and marks who goes to sleep on a queue whose bell is switched off.';

create trigger mark before insert on reveille.sleepers for each row execute function reveille.mark_sleeper();

create function reveille.mark_sleepers() returns trigger
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
comment on function reveille.mark_sleepers() is 'Marks who sleeps on a queue whose bell is switched on or off.';

create constraint trigger mark_sleepers after insert or delete or update of bell on reveille.queues
    deferrable initially deferred
    for each row execute function reveille.mark_sleepers();

create function reveille.note_nobody_sleeps() returns boolean
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
comment on function reveille.note_nobody_sleeps() is
    'Spares those who enqueue the question whom to ring for, if nobody sleeps; whether that is so. To be called in a '
    'transaction of its own, as workers do.';
