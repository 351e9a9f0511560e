-- What the doctor asks about jobs that no worker could claim or read. They are named by their ids alone, since
-- whatever else they hold may be what cannot be read. Needs select on the two views.
--
-- A row a finding, as in sql/doctor_server.sql.
with
found (state, finding, advice) as (
    (
        select
            'bad', format('job %s cannot be claimed and is passed over: %s (SQLSTATE %s)', id, error, code),
            'mend the row, or what refuses it: a trigger, an index or a constraint; the others of its queue are worked'
        from reveille.passed_over_jobs
        order by id
        limit 10
    )
    union all
    select
        'note', format('jobs that died of what they hold, the last within a day: %s, job %s among them', sum(jobs), max(last_id)),
        'see `reveille dead list --reason undecodable`'
    from reveille.dead_jobs_overview
    where reason = 'undecodable' and last_died_at > now() - interval '1 day'
    having count(*) > 0
)
select 'isolated' as check, state, finding, advice from found
union all
select 'isolated', 'ok', 'every job can be claimed and read', null where not exists (select from found)
