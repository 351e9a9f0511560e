-- Lists the jobs that are reserved by no live worker. If a rescue fails, it is repeated for ever smaller parts of them,
-- until the job is found that the server refuses.
select jobs.id
from reveille.jobs
where jobs.reserved_at is not null
    and jobs.reserved_by = any (array(
        select reserved.reserved_by
        from reveille.jobs as reserved
        where reserved.reserved_at is not null
            and not exists (select from reveille.workers where workers.id = reserved.reserved_by)
    ))
