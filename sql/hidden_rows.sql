-- Finds a table of which row security may hide rows from the current role, because no policy shows this role all rows.
--
--   $1 text  the schema's name
--
-- Returns one row with the names of the table and the role, or no row.
--
-- Every name is qualified, since this query may run in a session with any search path.
select tables.relname::pg_catalog.text as name, current_user::pg_catalog.text as role
from pg_catalog.pg_class as tables
where tables.relnamespace operator(pg_catalog.=) (
        select oid from pg_catalog.pg_namespace where nspname operator(pg_catalog.=) $1::pg_catalog.name
    )
    and tables.relkind operator(pg_catalog.=) any (array['r', 'p']::pg_catalog."char"[])
    and not tables.relispartition
    and pg_catalog.row_security_active(tables.oid)
    and not coalesce((
        select
            -- One permissive policy that shows all rows is enough, if no restrictive policy hides rows.
            pg_catalog.bool_or(policies.polpermissive and shown.condition operator(pg_catalog.=) 'true')
            and pg_catalog.bool_and(policies.polpermissive or shown.condition operator(pg_catalog.=) 'true')
        from pg_catalog.pg_policy as policies
        cross join lateral pg_catalog.pg_get_expr(policies.polqual, policies.polrelid) as shown (condition)
        where policies.polrelid operator(pg_catalog.=) tables.oid
            and policies.polcmd operator(pg_catalog.=) any (array['r', '*']::pg_catalog."char"[])
            and exists (
                select from pg_catalog.unnest(policies.polroles) as role (oid)
                where case
                    when role.oid operator(pg_catalog.=) 0 then true
                    else pg_catalog.pg_has_role(role.oid, 'member')
                end
            )
    ), false)
order by tables.relname
limit 1
