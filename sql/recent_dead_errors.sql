-- Lists the errors of dead jobs by the error's first line, the most frequent one of each group first. A group has the
-- same queue, kind and reason. Looks at the jobs of each group that died last.
--
--   $1 text[]  the queues; null: all
--   $2 text    the kind; null: all
--   $3 text    the reason; null: all
--   $4 int     the number of jobs to look at, together; at least 20 of each group
--   $5 int     the maximum number of errors of each group
--
-- Returns one row per group and error:
--   line          the first line of the last error, at most 500 characters; null: the jobs have no error
--   jobs          the number of jobs with this error, of the jobs that the statement has read
--   looked_at     the number of jobs of the group that were looked at
--   of_errors     the number of errors of the group
--   last          the job with this error that died last, without payload, metadata, progress and earlier errors
with groups as materialized (
    select queue, kind, reason, greatest(20, $4::int / count(*) over ()) as most
    from reveille.dead_groups()
    where ($1::text[] is null or queue = any ($1)) and ($2::text is null or kind = $2)
        and ($3::text is null or reason = $3)
    order by last_died_at desc
    limit 200
), recent as materialized (
    select
        groups.queue, groups.kind, groups.reason, died.id, died.finished_at,
        split_part(left(died.error, 500), E'\n', 1) as line
    from groups
    cross join lateral (
        select listed.id, listed.finished_at, listed.errors -> -1 ->> 'error' as error
        from reveille.dead_job_list as listed
        where listed.queue = groups.queue and listed.kind = groups.kind and listed.reason = groups.reason
        -- The `order by` names all columns of the index dead_jobs_by_kind, so that the planner uses no other index.
        order by listed.queue desc, listed.kind desc, listed.reason desc, listed.finished_at desc
        limit groups.most
    ) as died
), errors as (
    select
        queue, kind, reason, line, count(*) as jobs, (array_agg(id order by finished_at desc, id desc))[1] as last_id,
        sum(count(*)) over of_group as looked_at, count(*) over of_group as of_errors,
        row_number() over (partition by queue, kind, reason order by count(*) desc, max(finished_at) desc) as place
    from recent
    group by queue, kind, reason, line
    window of_group as (partition by queue, kind, reason)
)
select jsonb_build_object(
    'queue', errors.queue, 'kind', errors.kind, 'reason', errors.reason, 'line', line, 'jobs', jobs,
    'looked_at', looked_at, 'of_errors', of_errors,
    'last', to_jsonb(listed) || jsonb_build_object(
        'state', 'dead',
        'errors', case when listed.errors -> -1 is null then '[]' else jsonb_build_array(listed.errors -> -1) end
    )
) as record
from errors
join reveille.dead_job_list as listed on listed.id = errors.last_id
where place <= $5
order by errors.queue, errors.kind, errors.reason, place
