-- Upkeep: takes the chore of vacuuming, and lists the tables that the calling worker should vacuum now.
--
-- Returns one row for each table that has many dead rows and that the server allows this user to vacuum. Returns no row
-- while another worker is vacuuming. After a round of vacuuming, returns no row until 5 s have passed since the start
-- of the round, and four times its length since its end. Without this pause, workers would vacuum again and again in
-- vain while an old snapshot keeps dead rows from being removed.
--
-- The worker takes the chore by noting a time, not by a lock: a transaction that held a lock would itself keep dead
-- rows from being removed.
with due as materialized (
    select churned.name
    from (values
        ('jobs', 100000, 0.1), ('dead_jobs', 100000, 0.2), ('workers', 500, 1), ('sleepers', 500, 1),
        ('counters', 5000, 1), ('totals', 500, 1), ('kind_counters', 500, 1), ('rates', 5000, 1),
        ('chores', 500, 1), ('unique_periods', 10000, 0.2), ('schedules', 500, 1),
        ('linked_ends', 5000, 1), ('blocked_jobs', 100000, 0.1), ('dependencies', 100000, 0.2),
        ('workflow_jobs', 100000, 0.2), ('workflows', 5000, 1)
    ) as churned (name, dead, share)
    join pg_class on pg_class.oid = to_regclass('reveille.' || churned.name)::oid
    where pg_stat_get_dead_tuples(pg_class.oid)::numeric
            > greatest(churned.dead, churned.share * pg_stat_get_live_tuples(pg_class.oid)::numeric)
        and (
            pg_has_role(pg_class.relowner, 'usage')
            or exists (select from pg_database where datname = current_database() and pg_has_role(datdba, 'usage'))
            or case
                when current_setting('server_version_num')::int >= 170000
                then has_table_privilege(pg_class.oid, 'MAINTAIN')
                else false
            end
        )
), mine as materialized (
    select name
    from reveille.chores
    where name = 'vacuum' and exists (select from due)
        and coalesce(
            case
                when done_at >= began_at
                then clock_timestamp() >= greatest(
                    began_at + interval '5 seconds', done_at + 4::double precision * (done_at - began_at)
                )
                -- Another worker is vacuuming. After 2 minutes, that worker is assumed dead.
                else clock_timestamp() >= began_at + interval '2 minutes'
            end, true
        )
    for update skip locked
), taken as (
    update reveille.chores set began_at = clock_timestamp() from mine where chores.name = mine.name returning 1
)
select due.name from due where exists (select from taken)
