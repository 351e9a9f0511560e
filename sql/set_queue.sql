-- Settings of a queue; null leaves one as it is.
--
--   $1 text  queue   $2 double precision  retention in seconds, negative: back to the default   $3 boolean  bell
insert into reveille.queues (name, retention, bell)
values ($1, case when $2 >= 0 then make_interval(secs => $2) end, coalesce($3::boolean, true))
on conflict (name) do update
set retention = case when $2::double precision is null then queues.retention else excluded.retention end,
    bell = coalesce($3, queues.bell)
