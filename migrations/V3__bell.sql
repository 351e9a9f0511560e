-- The bell: an insert of jobs sends a notification for each queue of these jobs on which a worker sleeps.

create sequence reveille.somebody_sleeps as smallint minvalue 0 maxvalue 1;
comment on sequence reveille.somebody_sleeps is
    '0 if reveille.sleepers is empty: no worker sleeps, and no enqueue needs to ring. 1 if a worker may sleep.';
grant select on sequence reveille.somebody_sleeps to public;
select setval('reveille.somebody_sleeps', 0);

-- This function is called only in databases whose encoding is not UTF-8.
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
    'True if a queue''s name can be sent to a worker by NOTIFY. A notification that the server cannot convert to '
    'UTF-8 breaks the session that receives it.';

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
            -- At an isolation level other than read committed, the bell rings even if no sleeping worker is visible,
            -- because the snapshot may be older than the rows of the workers that sleep now. A bell that is switched
            -- off stays silent.
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
    'Rings the bell (NOTIFY) at the commit, for each of the given queues on which a worker sleeps. Call this function '
    'after a statement that lets waiting jobs start; after an insert, a trigger rings the bell. `set local '
    'reveille.bell = ''off''` silences the bell.';

-- The condition of the trigger `ring` calls this function. The plain expression would cost more, since each statement
-- would read and parse the expression anew from the catalogue. The function runs with the rights of its owner, since
-- servers before 17 raise an error for a role that may not read the sequence.
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
    'False if no worker sleeps, so that an insert need not search for workers to ring for. Reads the present state, '
    'whatever the statement''s snapshot shows.';

-- This function runs with the rights of its owner, so that a role that inserts needs no right to read
-- reveille.sleepers. The function sets no search path, since that would slow producers down by several percent. Instead
-- each name, type and operator is qualified. The function avoids constructs that look up operators on the search path:
-- `is distinct from`, `in`, `between`.
create function reveille.ring_after_insert() returns trigger
    language plpgsql volatile security definer
as $$
begin
    -- While a worker sleeps, every enqueue pays for this query. To stay cheap, the query does not remove duplicate
    -- queues: it sends a notification for each job, and the server merges the equal notifications of a transaction.
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
        -- At an isolation level other than read committed, the bell rings without a query for sleeping workers, because
        -- the snapshot may be older than the rows of the workers that sleep now. A bell that is switched off stays
        -- silent.
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
    'Rings the bell once for each queue of the new jobs, due or delayed, on which a worker sleeps. `set local '
    'reveille.bell = ''off''` silences the bell.';

create trigger ring after insert on reveille.jobs
    referencing new table as inserted
    for each statement
    when (reveille.somebody_may_sleep())
    execute function reveille.ring_after_insert();

-- This function rings if a user's update, or `on conflict do update`, makes a waiting job due sooner or moves it to
-- another queue. Claims do not pay for the trigger, since they do not update `available_at` and `queue`. A settlement
-- pays only for the trigger's condition, which is false if the job was reserved.
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
    'Rings the bell for a waiting job that was made due sooner or moved to another queue.';

create trigger ring_moved
    after update of available_at, queue on reveille.jobs
    for each row
    when (
        new.reserved_at is null and old.reserved_at is null
        and (new.available_at < old.available_at or new.queue <> old.queue)
        and reveille.somebody_may_sleep()
    )
    execute function reveille.ring_after_update();

-- This function reads the queue's setting without a lock, so that a worker that goes to sleep waits for no other
-- session. A session that changes the setting waits instead for the workers that are just going to sleep
-- (reveille.mark_sleepers).
create function reveille.mark_sleeper() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    select not bell into new.silent from reveille.queues where name = new.queue;
    new.silent := coalesce(new.silent, false);
    -- The sequence changes at once, not at the commit, so an enqueue sees the change whatever its snapshot shows. Until
    -- this insert is committed, its lock on reveille.sleepers keeps reveille.note_nobody_sleeps() from setting the
    -- sequence to 0 again.
    perform setval('reveille.somebody_sleeps', 1)
    where pg_sequence_last_value('reveille.somebody_sleeps') is not distinct from 0;
    return new;
end
$$;
comment on function reveille.mark_sleeper() is
    'Notes that a worker sleeps. Marks the worker''s row as silent if the queue''s bell is switched off.';

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
    -- Workers that are just going to sleep may have read the queue's old setting. Once the lock below is granted, their
    -- transactions have ended, and the update sees their rows.
    lock table reveille.sleepers in share row exclusive mode;
    update reveille.sleepers set silent = is_silent where queue = changed and silent <> is_silent;
    return null;
end
$$;
comment on function reveille.mark_sleepers() is
    'Marks the workers that sleep on a queue as silent, or not silent, when the queue''s bell is switched off or on.';

create constraint trigger mark_sleepers after insert or delete or update of bell on reveille.queues
    deferrable initially deferred
    for each row execute function reveille.mark_sleepers();

create function reveille.note_nobody_sleeps() returns boolean
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- This function refuses a transaction that has changed anything: a rollback would undo the changes, but not the
    -- sequence's new value. It also refuses isolation levels other than read committed, because their snapshots may be
    -- older than the rows of the workers that sleep now.
    if pg_current_xact_id_if_assigned() is not null or current_setting('transaction_isolation') <> 'read committed'
    then
        return false;
    end if;
    begin
        -- While this session holds the lock, no worker can go to sleep. If a worker is just going to sleep, the request
        -- for the lock fails at once.
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
    'If no worker sleeps, notes that inserts need not search for sleeping workers. Returns true if no worker sleeps, '
    'and false if a worker sleeps or may sleep. Call this function in a separate transaction, as workers do.';
