-- What a trigger asks for is asked with the owner's rights, of updates too; and no trigger function that runs with them is
-- for triggers of others, whichever migration has made it.
create or replace trigger ring_moved
    after update of available_at, queue on reveille.jobs
    for each row
    when (
        new.reserved_at is null and old.reserved_at is null
        and (new.available_at < old.available_at or new.queue <> old.queue)
        and reveille.somebody_may_sleep()
    )
    execute function reveille.ring_after_update();

do $$
declare
    of_trigger regprocedure;
begin
    for of_trigger in
        select oid from pg_proc
        where pronamespace = (select relnamespace from pg_class where oid = 'reveille.jobs'::regclass)
            and prosecdef and prorettype = 'trigger'::regtype
    loop
        execute format('revoke execute on function %s from public', of_trigger);
    end loop;
end
$$;
