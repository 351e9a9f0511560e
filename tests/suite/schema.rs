//! The schema that the migrations make equals the checked-in snapshots, so a review shows each change of the schema.
//!
//! After an intended change, `REVEILLE_SNAPSHOT=write cargo test --test suite -- schema::` writes new snapshots, on
//! PostgreSQL 15.

use std::path::PathBuf;
use std::process::Command;

use crate::generated::compare;
use crate::harness::{TestDatabase, database};

/// Lists each relation, column, index, constraint, trigger and function by its name, type and signature.
const CATALOG: &str = "
    select 'relation ' || relname || ' ' || relkind::text as line from pg_class
    where relnamespace = 'reveille'::regnamespace and relkind in ('r', 'p', 'v', 'S', 'i', 'I')
    union all
    select format('column %s.%s %s%s', relname, attname, format_type(atttypid, atttypmod), case when attnotnull
    then ' not null' end)
    from pg_attribute join pg_class on pg_class.oid = attrelid
    where relnamespace = 'reveille'::regnamespace and relkind in ('r', 'p', 'v') and not relispartition
        and attnum > 0 and not attisdropped
    union all
    select format('constraint %s on %s', conname, relname) from pg_constraint join pg_class on pg_class.oid = conrelid
    where relnamespace = 'reveille'::regnamespace and not relispartition and contype in ('c', 'f', 'p', 'u')
    union all
    select format('trigger %s on %s %s', tgname, relname, tgenabled) from pg_trigger
    join pg_class on pg_class.oid = tgrelid
    where relnamespace = 'reveille'::regnamespace and not tgisinternal
    union all
    select format(
        'function %s(%s) returns %s%s', proname, pg_get_function_arguments(oid), pg_get_function_result(oid),
        case when prosecdef then ' security definer' end
    )
    from pg_proc where pronamespace = 'reveille'::regnamespace";

#[tokio::test]
async fn the_catalog_of_a_new_schema_is_the_checked_in_one() {
    let database = database().await;
    let lines = format!("select string_agg(line, E'\\n' order by line collate \"C\") from ({CATALOG}) as catalog");
    let lines = database.value(&format!("select to_jsonb(({lines}))")).await;
    compare("tests/snapshots/catalog.txt", &format!("{}\n", lines.as_str().unwrap()));
}

/// Returns the dump of the schema. Of the 32 equal partitions and the 8 equal shared heads, keeps one each. Leaves out
/// lines that differ between minor versions.
fn dump(pg_dump: &PathBuf, database: &TestDatabase) -> String {
    let output = Command::new(pg_dump)
        .args(["--schema-only", "--schema=reveille", "--no-owner", "--no-privileges", "-d", &database.address])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let is_one_of_many = |part: &str| {
        let numbers =
            (1..32).map(|day| format!("finished_jobs_{day}")).chain((1..8).map(|slot| format!("head_{slot}_")));
        numbers.into_iter().any(|name| {
            part.match_indices(&name).any(|(place, _)| {
                !part[place + name.len()..].starts_with(|c: char| c.is_ascii_digit()) || name.ends_with('_')
            })
        })
    };
    // Leaves out comments, which only repeat their statements, and lines about the session that reads the dump.
    let is_noise = |line: &&str| {
        ["--", "SET ", "SELECT pg_catalog.set_config", "\\restrict", "\\unrestrict"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let parts = text.split("\n\n\n").filter(|part| !is_one_of_many(part));
    let parts = parts.map(|part| part.lines().filter(|line| !is_noise(line)).collect::<Vec<_>>().join("\n"));
    parts
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .map(|part| part + "\n")
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn the_dump_of_a_new_schema_is_the_checked_in_one() {
    let database = database().await;
    let about = "select jsonb_build_array(
        current_setting('server_version_num')::int / 10000, (select setting from pg_config where name = 'BINDIR'))";
    let about = database.value(about).await;
    let pg_dump = PathBuf::from(about[1].as_str().unwrap()).join("pg_dump");
    // Compares the dump only on version 15, because other versions write another dump. A server may also lack the
    // program.
    if about[0] == 15 && pg_dump.exists() {
        compare("tests/snapshots/schema.sql", &dump(&pg_dump, &database));
    }
}
