-- Shared heads. A head is the place that the claims of a full queue have reached; all workers of the queue share it. A
-- head is kept in three sequences, since a sequence changes at once and not at the commit. There are eight sets of
-- these sequences; queues share a set if their names have the same hash modulo eight.

do $$
begin
    for slot in 0..7 loop
        execute format('create sequence reveille.head_%s_available_at', slot);
        execute format('create sequence reveille.head_%s_id', slot);
        execute format('create sequence reveille.head_%s_seal minvalue 0', slot);
        execute format(
            'comment on sequence reveille.head_%s_available_at is %L', slot,
            'The due time of the place that the claims of a queue have reached, in microseconds since 1970. The '
            'sequence _id has the place''s id; _seal has a checksum that shows that queue, level, due time and id '
            'belong together.'
        );
    end loop;
end
$$;

create function reveille.head_seal(queue text, priority int, available_at bigint, id bigint) returns bigint
    language sql immutable strict parallel safe
return pg_catalog.hashtextextended(queue, available_at) # pg_catalog.hashint8extended(id, priority)
    & 9223372036854775807;
comment on function reveille.head_seal(text, int, bigint, bigint) is
    'Returns a checksum over the parts of a head, which shows that they belong together.';

create function reveille.tell_head(queue text, priority smallint, available_at timestamptz, id bigint) returns void
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    slot constant text := 'reveille.head_' || (hashtextextended(queue, 0) & 7);
    since_1970 constant bigint := (extract(epoch from available_at) * 1000000)::bigint;
begin
    if since_1970 > 0 and id > 0 then
        perform setval((slot || '_available_at')::regclass, since_1970), setval((slot || '_id')::regclass, id),
            setval((slot || '_seal')::regclass, reveille.head_seal(queue, priority, since_1970, id));
    end if;
end
$$;
comment on function reveille.tell_head(text, smallint, timestamptz, bigint) is
    'Shares with the other workers of a queue the place that this worker''s claims have reached.';

create function reveille.told_head(queue text, out priority smallint, out available_at timestamptz, out id bigint)
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    slot constant text := 'reveille.head_' || (hashtextextended(queue, 0) & 7);
    since_1970 constant bigint := pg_sequence_last_value((slot || '_available_at')::regclass);
    seal constant bigint := pg_sequence_last_value((slot || '_seal')::regclass);
    place constant timestamptz := timestamptz 'epoch' + since_1970 * interval '1 microsecond';
begin
    id := pg_sequence_last_value((slot || '_id')::regclass);
    -- A place in the future is ignored: it was shared while the server's clock was fast.
    if place > now() then
        return;
    end if;
    for level in 0..3 loop
        if seal = reveille.head_seal(queue, level, since_1970, id) then
            priority := level;
        end if;
    end loop;
    available_at := place;
    -- If the shared place is less than a second old, claims start 50 ms before it. Transactions commit slightly out of
    -- the order in which they began, so jobs before it may be committed only after a claim has passed their places.
    if place > now() - interval '1 second' then
        available_at := place - interval '50 milliseconds';
        id := 0;
    end if;
end
$$;
comment on function reveille.told_head(text) is
    'Returns the place that the claims of a queue have reached, as its workers last shared it; priority is null if '
    'the place is not known.';
