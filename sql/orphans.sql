-- The jobs that are reserved by no live worker, for a rescue that has to find out which of them it cannot put back.
select jobs.id
from reveille.jobs
where jobs.reserved_at is not null
    and jobs.reserved_by = any (array(
        select reserved.reserved_by
        from reveille.jobs as reserved
        where reserved.reserved_at is not null
            and not exists (select from reveille.workers where workers.id = reserved.reserved_by)
    ))
