-- Records a change that an operator has just made in the same transaction.
--
--   $1 text   the actor
--   $2 text   the source: the way by which the actor acted
--   $3 text   the action
--   $4 jsonb  the target
--   $5 jsonb  the detail
--   $6 jsonb  a payload, of which only the hash and the length are stored, in the detail; null: none
--   $7 text   the name of the request that asked for the change; null: none
--
-- Fails if the request was recorded before.
insert into reveille.actions (actor, source, action, target, detail, request, ended_at, outcome)
select
    $1, $2, $3, $4,
    $5::jsonb || case
        when $6::jsonb is null then '{}'
        else jsonb_build_object('payload', jsonb_build_object(
            'sha256', encode(sha256(convert_to($6::text, getdatabaseencoding())), 'hex'),
            'bytes', octet_length($6::text)
        ))
    end,
    $7, clock_timestamp(), 'done'
