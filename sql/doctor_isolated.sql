-- Examines for the doctor the jobs that no worker could claim or read. Needs select on the two views.
--
-- Returns one row per finding, as sql/doctor_server.sql does.
--
-- A finding names a job by its id alone, since any other column may be the one that cannot be read.
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
