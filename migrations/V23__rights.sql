-- What an enqueue needs does not depend on who sleeps, and what runs with the owner's rights runs for Reveille's own tables alone.

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
    'Whether a queue''s name can be told to a worker by NOTIFY. A session to which the server cannot send a notification in UTF-8 is broken.';

create or replace function reveille.ring(queues text[]) returns void
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
    'Ring the bell (NOTIFY) for those of these queues that somebody sleeps on, when the transaction commits: for every statement that '
    'makes work possible. `set local reveille.bell = ''off''` silences it.';

-- With its owner's rights, so that whoever may insert need not read who sleeps. It sets no search path, which takes producers several
-- percent: each name, type and operator is qualified instead, and what looks operators up by itself (`is distinct from`, `in`, `between`)
-- is not used.
create or replace function reveille.ring_after_insert() returns trigger
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
    'Whether an insert has to ask whom to ring for: false while nobody sleeps. Whatever the statement''s snapshot shows.';

create or replace trigger ring after insert on reveille.jobs
    referencing new table as inserted
    for each statement
    when (reveille.somebody_may_sleep())
    execute function reveille.ring_after_insert();

-- A trigger on a table of one's own, with columns of a type of one's own, would run that type's casts with the owner's rights. Only who
-- makes a trigger needs this right.
revoke execute on function
    reveille.ring_after_insert(), reveille.mark_sleeper(), reveille.mark_sleepers(), reveille.limits_changed(), reveille.keep_totals()
from public;

-- With its owner's rights, since it has to write to see past an old snapshot; and so that who may enqueue may ask.
create or replace function reveille.period_holder(kind text, unique_key text) returns bigint
    language plpgsql volatile security definer
    set enable_seqscan = off
as $$
declare
    holder pg_catalog.int8;
begin
    holder := (
        select held.job_id from reveille.unique_periods as held
        where held.kind operator(pg_catalog.=) period_holder.kind
            and held.unique_key operator(pg_catalog.=) period_holder.unique_key
            and held.ends_at operator(pg_catalog.>) pg_catalog.now()
    );
    -- The snapshot of such a transaction may be older than a period. Only the index of the key knows of it then: where a row is there
    -- that the snapshot does not show, to insert another ends in a serialization failure (40001), and the transaction is tried again. Not
    -- before the caller has inserted its job, so that all wait for each other in one order: first for the job's key, then for the period.
    if holder is null and pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.<>) 'read committed' then
        perform from reveille.jobs
        where jobs.kind operator(pg_catalog.=) period_holder.kind
            and jobs.unique_key operator(pg_catalog.=) period_holder.unique_key
            and jobs.created_at operator(pg_catalog.=) pg_catalog.now() and jobs.reserved_by is null;
        if found then
            insert into reveille.unique_periods (kind, unique_key, job_id, ends_at)
            values (period_holder.kind, period_holder.unique_key, 0, '-infinity')
            on conflict do nothing;
            delete from reveille.unique_periods as held
            where held.kind operator(pg_catalog.=) period_holder.kind
                and held.unique_key operator(pg_catalog.=) period_holder.unique_key
                and held.job_id operator(pg_catalog.=) 0::pg_catalog.int8;
        end if;
    end if;
    return holder;
end
$$;
comment on function reveille.period_holder(text, text) is
    'The job that holds a unique key of a kind for a period that is not over yet; null if there is none. Fails, to be tried again (40001), '
    'where the transaction''s snapshot is too old to tell, once the caller has enqueued a job of that key.';

-- A dump of the data, restored into a database that is migrated, and the first copy of a subscription bring the history along: what is
-- known is passed over. Under replication, too, which fires no other trigger.
create function reveille.pass_over_known_migration() returns trigger
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    known record;
begin
    select name, checksum into known from reveille.schema_history where version = new.version;
    if not found then
        return new;
    end if;
    if known.name = new.name and known.checksum = new.checksum then
        return null;
    end if;
    raise exception 'migration % is % here and % in the data', new.version, known.name, new.name
        using errcode = 'unique_violation', hint = 'Restore into a schema that the same version of Reveille has made.';
end
$$;
comment on function reveille.pass_over_known_migration() is
    'Passes over the migrations that a restored dump of the data brings along and that are known already.';

create trigger pass_over_known before insert on reveille.schema_history
    for each row execute function reveille.pass_over_known_migration();
alter table reveille.schema_history enable always trigger pass_over_known;

-- A publication of all tables refuses to update or delete rows of a table that has no key.
do $$
begin
    execute 'alter table reveille.finished_jobs replica identity full';
    for day in 0..31 loop
        execute format('alter table reveille.finished_jobs_%s replica identity full', day);
    end loop;
end
$$;
