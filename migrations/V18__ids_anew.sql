-- Ids that were given out before, as after a restore in which the sequence began anew: a dead job keeps its id, and
-- another one that comes to lie beside it gets a fresh one.

-- With its owner's rights: to move the sequence is nobody's who works or revives jobs.
create function reveille.pass_given_ids() returns bigint
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
declare
    ids constant regclass := 'reveille.jobs_id_seq';
    -- An id beyond is nobody's but who has written it by hand: after it there would be none left to give out.
    too_large constant bigint := 4611686018427387904;
    largest bigint;
begin
    -- One statement, so that no id can be seen that was given out after the sequence was read; usually each index ends
    -- below.
    perform from (select coalesce(pg_sequence_last_value(ids), 0)) as given (last)
    where exists (select from reveille.jobs where jobs.id > given.last and jobs.id < too_large)
        or exists (select from reveille.dead_jobs where dead_jobs.id > given.last and dead_jobs.id < too_large)
        or exists (select from reveille.finished_jobs where finished_jobs.id > given.last and finished_jobs.id < too_large);
    if not found then
        return null;
    end if;
    select greatest(
        (select max(jobs.id) from reveille.jobs where jobs.id < too_large),
        (select max(dead_jobs.id) from reveille.dead_jobs where dead_jobs.id < too_large),
        (select max(finished_jobs.id) from reveille.finished_jobs where finished_jobs.id < too_large)
    ) into largest;
    -- One at a time, or the second could move the sequence back below what it has given out since.
    lock table reveille.dead_jobs in share update exclusive mode;
    if largest <= pg_sequence_last_value(ids) then
        return null;
    end if;
    -- A thousand more, which are not given out between this look and the next statement.
    return setval(ids, largest + 1000);
end
$$;
comment on function reveille.pass_given_ids() is
    'Moves the sequence of job ids past all that were given out, where it is behind, as after a restore: to where; null where it is not. Upkeep calls it.';

create function reveille.fresh_job_id() returns bigint
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
begin
    perform reveille.pass_given_ids();
    return nextval('reveille.jobs_id_seq');
end
$$;
comment on function reveille.fresh_job_id() is
    'An id that no job has, for one that is buried or revived where another job has its id.';

-- Who can bury or revive jobs so far may ask here as well, without being granted it anew.
revoke execute on function reveille.pass_given_ids(), reveille.fresh_job_id() from public;
do $$
declare
    role record;
begin
    for role in
        select distinct granted.grantee
        from pg_catalog.pg_class as tables
        cross join lateral pg_catalog.aclexplode(tables.relacl) as granted
        where tables.oid = 'reveille.dead_jobs'::regclass and granted.privilege_type = 'INSERT' and granted.grantee <> tables.relowner
    loop
        execute format(
            'grant execute on function reveille.pass_given_ids(), reveille.fresh_job_id() to %s',
            case when role.grantee = 0 then 'public' else role.grantee::regrole::text end
        );
    end loop;
end
$$;

create or replace function reveille.retry(id bigint) returns text
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    job reveille.jobs;
    dead reveille.dead_jobs;
begin
    select * into job from reveille.jobs where jobs.id = retry.id for update;
    if found and job.reserved_at is not null then
        return 'running';
    elsif found then
        update reveille.jobs set available_at = least(available_at, now()) where jobs.id = retry.id;
        perform reveille.ring(array[job.queue]);
        return 'due';
    end if;

    delete from reveille.dead_jobs where dead_jobs.id = retry.id returning * into dead;
    if found then
        insert into reveille.jobs (
            id, queue, kind, payload, priority, attempts, max_attempts, created_at, unique_key, unique_until,
            key, timeout, tags, metadata, errors, progress, parent_id, schedule_id
        )
        overriding system value
        values (
            dead.id, dead.queue, dead.kind, dead.payload, dead.priority, dead.attempts, dead.max_attempts, dead.created_at,
            dead.unique_key, dead.unique_until, dead.key, dead.timeout, dead.tags, dead.metadata, dead.errors,
            dead.progress, dead.parent_id, dead.schedule_id
        )
        on conflict do nothing;
        if not found then
            if exists (select from reveille.jobs where jobs.id = retry.id) then
                raise exception 'job % cannot be revived: a live job has its id', retry.id
                    using errcode = 'unique_violation', hint = 'Try again once that job has ended.';
            end if;
            raise exception 'job % cannot be revived: a live job of its kind has its unique key', retry.id
                using errcode = 'unique_violation', hint = 'Cancel that job or wait for its end, then try again.';
        end if;
        return 'revived';
    end if;

    return case
        when exists (select from reveille.finished_jobs where finished_jobs.id = retry.id) then 'finished'
        else 'unknown'
    end;
end
$$;
