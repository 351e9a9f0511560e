-- While nobody sleeps at all, an enqueue is not asked whom to ring for: a sequence says so, which the trigger's own condition
-- reads without a query. It may say that somebody sleeps when nobody does, never the other way round.

-- Until this is committed, nobody goes to sleep.
lock table reveille.sleepers in share row exclusive mode;

create sequence reveille.somebody_sleeps as smallint minvalue 0 maxvalue 1;
comment on sequence reveille.somebody_sleeps is 'Its last value is 0 while nobody sleeps in reveille.sleepers: no enqueue needs to ring.';
-- Where it can't be read, the trigger asks the table.
grant select on sequence reveille.somebody_sleeps to public;

create or replace function reveille.mark_sleeper() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    select not bell into new.silent from reveille.queues where name = new.queue for share;
    new.silent := coalesce(new.silent, false);
    -- Held until this row can be seen. Whoever enqueues reads the sequence as it is, not as a snapshot shows it.
    perform pg_advisory_xact_lock_shared(hashtextextended('reveille.somebody_sleeps', 0));
    perform setval('reveille.somebody_sleeps', 1)
    where pg_sequence_last_value('reveille.somebody_sleeps') is not distinct from 0;
    return new;
end
$$;
comment on function reveille.mark_sleeper() is
    'Says that somebody sleeps, and marks who goes to sleep on a queue whose bell is switched off.';

create function reveille.note_nobody_sleeps() returns boolean
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- A transaction that has changed anything could be undone, and the sequence not with it; an older snapshot may not show who sleeps.
    if pg_current_xact_id_if_assigned() is not null
        or current_setting('transaction_isolation') <> 'read committed'
        -- While this is held, nobody goes to sleep.
        or not pg_try_advisory_xact_lock(hashtextextended('reveille.somebody_sleeps', 0))
    then
        return false;
    end if;
    if exists (select from reveille.sleepers) then
        return false;
    end if;
    perform setval('reveille.somebody_sleeps', 0)
    where pg_sequence_last_value('reveille.somebody_sleeps') is distinct from 0;
    return true;
end
$$;
comment on function reveille.note_nobody_sleeps() is
    'Spares those who enqueue the question whom to ring for, if nobody sleeps; whether that is so. To be called in a transaction of its own, as workers do.';

create or replace trigger ring after insert on reveille.jobs
    referencing new table as inserted
    for each statement
    when (pg_catalog.pg_sequence_last_value('reveille.somebody_sleeps'::regclass) is distinct from 0::bigint)
    execute function reveille.ring_after_insert();

select setval('reveille.somebody_sleeps', 0) where not exists (select from reveille.sleepers);
