-- Whether a queue's bell is switched off is asked when somebody goes to sleep, not at each enqueue: a sleeper of such a queue is
-- marked as one that need not be rung for.

alter table reveille.sleepers add column silent boolean not null default false;
comment on column reveille.sleepers.silent is 'Its queue''s bell is switched off (reveille.queues.bell): enqueuing does not ring for it.';

-- With its owner's rights: to lock a queue's settings is not a worker's by itself. The lock keeps them from changing until the row
-- that they are copied to can be seen.
create function reveille.mark_sleeper() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    select not bell into new.silent from reveille.queues where name = new.queue for share;
    new.silent := coalesce(new.silent, false);
    return new;
end
$$;
comment on function reveille.mark_sleeper() is 'Marks who goes to sleep on a queue whose bell is switched off.';

create trigger mark before insert on reveille.sleepers for each row execute function reveille.mark_sleeper();

create function reveille.mark_sleepers() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    update reveille.sleepers
    set silent = tg_op <> 'DELETE' and not new.bell
    where queue = case when tg_op = 'DELETE' then old.name else new.name end;
    return null;
end
$$;
comment on function reveille.mark_sleepers() is 'Marks who sleeps on a queue whose bell is switched on or off.';

create trigger mark_sleepers after insert or delete or update of bell on reveille.queues
    for each row execute function reveille.mark_sleepers();

update reveille.sleepers
set silent = true
where queue in (select name from reveille.queues where not bell);

create or replace function reveille.ring(queues text[]) returns void
    language plpgsql volatile
as $$
begin
    perform case
        when (select pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.9)
        then pg_catalog.pg_notify('reveille.bell', rung.queue)
    end
    from (select distinct q.queue from pg_catalog.unnest(queues) as q (queue)) as rung
    where exists (select from reveille.sleepers where sleepers.queue operator(pg_catalog.=) rung.queue and not sleepers.silent)
        -- An older snapshot may not show who has gone to sleep meanwhile.
        or (
            pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.<>) 'read committed'
            and not exists (
                select from reveille.queues as silent where silent.name operator(pg_catalog.=) rung.queue and not silent.bell
            )
        );
end
$$;

create or replace function reveille.ring_after_insert() returns trigger
    language plpgsql volatile
as $$
begin
    -- Every enqueue pays for this question. Equal notifications of a transaction are folded into one.
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
            and pg_catalog.current_setting('reveille.bell', true) is distinct from 'off';
    else
        -- An older snapshot may not show who has gone to sleep meanwhile.
        perform case
            when (select pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.9)
            then pg_catalog.pg_notify('reveille.bell', inserted.queue)
        end
        from inserted
        where pg_catalog.current_setting('reveille.bell', true) is distinct from 'off'
            and not exists (
                select from reveille.queues as silent
                where silent.name operator(pg_catalog.=) inserted.queue and not silent.bell
            );
    end if;
    return null;
end
$$;
