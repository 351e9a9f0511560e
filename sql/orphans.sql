-- Lists the jobs that are reserved for a worker that no longer lives. Runs if a rescue fails. The rescue is then
-- repeated for smaller and smaller parts of these jobs, until it finds the one job that the server refuses.
select jobs.id
from reveille.jobs
where jobs.reserved_at is not null
    and jobs.reserved_by = any (array(
        select reserved.reserved_by
        from reveille.jobs as reserved
        where reserved.reserved_at is not null
            and not exists (select from reveille.workers where workers.id = reserved.reserved_by)
    ))
