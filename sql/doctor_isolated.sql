-- The doctor's check of jobs that no worker could claim or read. It needs the privilege select on the views
-- passed_over_jobs and dead_jobs_overview.
--
-- Returns one row per finding, with the columns of sql/doctor_server.sql.
--
-- A finding names a job by its id only, since any other column may be unreadable.
with
found (state, finding, advice) as (
    (
        select
            'bad', format('job %s cannot be claimed and is passed over: %s (SQLSTATE %s)', id, error, code),
            'repair the row, or what refuses it: a trigger, an index or a constraint; the other jobs of its queue run'
        from reveille.passed_over_jobs
        order by id
        limit 10
    )
    union all
    select
        'note',
        format(
            'jobs that died because of their contents, the last within a day: %s, job %s among them', sum(jobs),
            max(last_id)
        ),
        'see `reveille dead list --reason undecodable`'
    from reveille.dead_jobs_overview
    where reason = 'undecodable' and last_died_at > now() - interval '1 day'
    having count(*) > 0
)
select 'isolated' as check, state, finding, advice from found
union all
select 'isolated', 'ok', 'every job can be claimed and read', null where not exists (select from found)
