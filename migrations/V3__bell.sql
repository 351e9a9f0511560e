-- The bell: an insert notifies the queues on which a worker sleeps.

create sequence reveille.somebody_sleeps as smallint minvalue 0 maxvalue 1;
comment on sequence reveille.somebody_sleeps is
    'Its last value is 0 while no worker sleeps in reveille.sleepers: no enqueue needs to ring.';
grant select on sequence reveille.somebody_sleeps to public;
select setval('reveille.somebody_sleeps', 0);

-- Called only in databases that are not in UTF-8.
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
    'Whether a queue''s name can be sent to a worker by NOTIFY. A notification that the server cannot convert to '
    'UTF-8 breaks the session that is to receive it.';

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
            exists (
                select from reveille.sleepers
                where sleepers.queue operator(pg_catalog.=) rung.queue and not sleepers.silent
            )
            -- An older snapshot may not show workers that have gone to sleep since.
            or (
                pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.<>) 'read committed'
                and not exists (
                    select from reveille.queues as silent
                    where silent.name operator(pg_catalog.=) rung.queue and not silent.bell
                )
            )
        )
        and (pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'UTF8' or reveille.can_be_sent(rung.queue));
end
$$;
comment on function reveille.ring(text[]) is
    'Rings the bell (NOTIFY) at the commit for each of these queues on which a worker sleeps. Each statement that '
    'makes work possible calls it. `set local reveille.bell = ''off''` silences it.';

-- With its owner's rights, since servers before 17 raise an error for a role that may not read the sequence. The same
-- expression in the trigger's condition would cost more: each statement would parse it anew from the catalogue.
create function reveille.somebody_may_sleep() returns boolean
    language plpgsql stable security definer
as $$
begin
    return (
        pg_catalog.pg_sequence_last_value('reveille.somebody_sleeps'::pg_catalog.regclass)
            operator(pg_catalog.=) 0::pg_catalog.int8
    ) is not true;
end
$$;
comment on function reveille.somebody_may_sleep() is
    'Whether an insert has to look for workers to ring for: false while no worker sleeps. Reads the present state, '
    'whatever the statement''s snapshot shows.';

-- With its owner's rights, so that a role that inserts need not be able to read reveille.sleepers. It sets no search
-- path, which would cost producers several percent. Instead each name, type and operator is qualified. Constructs that
-- look operators up by themselves (`is distinct from`, `in`, `between`) are not used.
create function reveille.ring_after_insert() returns trigger
    language plpgsql volatile security definer
as $$
begin
    -- Every enqueue pays for this query while a worker sleeps. The server folds equal notifications of a transaction
    -- into one.
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
            and (
                pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'UTF8' or reveille.can_be_sent(inserted.queue)
            );
    else
        -- An older snapshot may not show workers that have gone to sleep since.
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
            and (
                pg_catalog.getdatabaseencoding() operator(pg_catalog.=) 'UTF8' or reveille.can_be_sent(inserted.queue)
            );
    end if;
    return null;
end
$$;
comment on function reveille.ring_after_insert() is
    'Rings once for each queue of the new jobs, due or delayed, on which a worker sleeps. `set local reveille.bell = '
    '''off''` silences it.';

create trigger ring after insert on reveille.jobs
    referencing new table as inserted
    for each statement
    when (reveille.somebody_may_sleep())
    execute function reveille.ring_after_insert();

-- For a user's update, or `on conflict do update`, that makes a waiting job due sooner or moves it to another queue.
-- Claims do not touch these columns. A settlement pays for the condition alone.
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

-- A worker that goes to sleep waits for no session: it takes the settings that it finds. A session that changes the
-- settings waits for the workers that are going to sleep.
create function reveille.mark_sleeper() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    select not bell into new.silent from reveille.queues where name = new.queue;
    new.silent := coalesce(new.silent, false);
    -- An enqueue reads the sequence's present value, whatever its snapshot shows. The lock that this insert has on the
    -- table keeps reveille.note_nobody_sleeps() from undoing this before the row can be seen.
    perform setval('reveille.somebody_sleeps', 1)
    where pg_sequence_last_value('reveille.somebody_sleeps') is not distinct from 0;
    return new;
end
$$;
comment on function reveille.mark_sleeper() is
    'Notes that a worker sleeps, and marks a worker that goes to sleep on a queue whose bell is switched off.';

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
    -- Workers that are going to sleep have read the old settings. Once this lock is granted, their rows can be seen.
    lock table reveille.sleepers in share row exclusive mode;
    update reveille.sleepers set silent = is_silent where queue = changed and silent <> is_silent;
    return null;
end
$$;
comment on function reveille.mark_sleepers() is
    'Marks the workers that sleep on a queue whose bell is switched on or off.';

create constraint trigger mark_sleepers after insert or delete or update of bell on reveille.queues
    deferrable initially deferred
    for each row execute function reveille.mark_sleepers();

create function reveille.note_nobody_sleeps() returns boolean
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- A transaction that has changed anything could be rolled back, and the sequence would keep its value. An older
    -- snapshot may not show the workers that sleep.
    if pg_current_xact_id_if_assigned() is not null or current_setting('transaction_isolation') <> 'read committed'
    then
        return false;
    end if;
    begin
        -- While this lock is held, no worker goes to sleep. It is refused while a worker is going to sleep.
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
    'If no worker sleeps, notes that inserts need not look for one. Returns whether no worker sleeps. Call it in a '
    'separate transaction, as workers do.';
