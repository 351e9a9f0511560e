-- Of a table that nothing is known of, the planner takes for granted that it has ten pages, and looks up the sleepers of a queue by way of a
-- bitmap, which takes each enqueue longer than reading the few rows that there are. Autovacuum would find out in time.
analyze reveille.sleepers;
