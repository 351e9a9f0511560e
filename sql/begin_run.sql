-- Records the beginning of a run over many jobs, or of another action that takes several transactions.
--
--   $1 text          the actor
--   $2 text          the source: the way by which the actor acted
--   $3 text          the action
--   $4 jsonb         the conditions of the filter, without payload and time; null: the action has no filter
--   $5 timestamptz   the time since which the filter takes jobs; null: any
--   $6 jsonb         the payload that the filter's jobs contain; only its hash and length are stored; null: any
--   $7 jsonb         the new settings of the jobs, without payload and time; null: the action sets none
--   $8 timestamptz   the new due time of the jobs; null: none
--   $9 jsonb         the new payload of the jobs; only its hash and length are stored; null: none
--   $10 bigint       the number of jobs that passed the filter when they were counted; null: they were not counted
--   $11 bigint       the highest id
--   $12 text         the name of the request that asked for the run; null: none
--
-- Fails if the request was recorded before. Returns one row: the id of the action.
insert into reveille.actions (
    actor, source, action, target, detail, matching, done, requested, passed_over, left_over, refused, highest_id,
    request
)
select
    $1, $2, $3,
    case
        when $4::jsonb is null then '{}'
        else jsonb_build_object('filter', $4::jsonb
            || case when $5::timestamptz is null then '{}' else jsonb_build_object('since', $5::timestamptz) end
            || case
                when $6::jsonb is null then '{}'
                else jsonb_build_object('payload', jsonb_build_object(
                    'sha256', encode(sha256(convert_to($6::text, getdatabaseencoding())), 'hex'),
                    'bytes', octet_length($6::text)
                ))
            end)
    end,
    case
        when $7::jsonb is null then '{}'
        else jsonb_build_object('new', $7::jsonb
            || case when $8::timestamptz is null then '{}' else jsonb_build_object('available_at', $8::timestamptz) end
            || case
                when $9::jsonb is null then '{}'
                else jsonb_build_object('payload', jsonb_build_object(
                    'sha256', encode(sha256(convert_to($9::text, getdatabaseencoding())), 'hex'),
                    'bytes', octet_length($9::text)
                ))
            end)
    end,
    $10, counts.zero, counts.zero, counts.zero, counts.zero, counts.zero, $11, $12
from (values (case when $4::jsonb is not null then 0::bigint end)) as counts (zero)
returning id
