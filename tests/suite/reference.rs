//! The pages about the SQL interface say what the catalog of a new schema says.
//!
//! After an intended change, `REVEILLE_SNAPSHOT=write cargo test --test suite -- reference::` writes them anew.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::generated::{compare_parts, markdown, parts, table, wrapped};
use crate::harness::{TestDatabase, database};

/// The tables that users may rely on, each with the columns that they may rely on. The other columns are Reveille's.
const TABLES: [(&str, &str); 11] = [
    (
        "jobs",
        "id queue kind payload priority attempts failures max_attempts reserved_at reserved_by available_at created_at \
         unique_key unique_until key timeout tags metadata errors progress parent_id schedule_id \
         paused_by",
    ),
    ("finished_jobs", "outcome result worker wait_seconds run_seconds finished_at"),
    ("dead_jobs", "reason worker wait_seconds run_seconds finished_at"),
    (
        "queues",
        "name paused_at retention dead_retention max_running max_running_per_key rate_limit rate_period rate_burst \
         rate_per_key ordered bell",
    ),
    ("pauses", "id queue kind key paused_at"),
    ("workers", "id host pid version queues slots kinds started_at last_seen_at stopping stop_requested_at"),
    (
        "schedules",
        "id name cron every time_zone catch_up kind payload queue priority max_attempts timeout key tags metadata \
         next_at last_at paused_at error created_at",
    ),
    ("unique_periods", "kind unique_key job_id ends_at"),
    ("steps", "job name kind value until outcome attempt recorded_at"),
    ("waits", "job event until"),
    ("events", "name payload emitted_at until"),
];

/// A column of a table or a view, as the catalog describes it.
struct Column {
    name: String,
    kind: String,
    default: String,
    comment: String,
}

/// The catalog of a new schema.
struct Catalog(TestDatabase);

impl Catalog {
    /// Returns the rows of a query whose columns are texts.
    async fn rows(&self, query: &str) -> Vec<Vec<String>> {
        let rows =
            self.0.value(&format!("select coalesce(jsonb_agg(to_jsonb(rows)), '[]') from ({query}) as rows")).await;
        let texts = |row: &Value| {
            let text = |index: usize| row[format!("c{index}")].as_str().unwrap_or_default().to_owned();
            (1..=row.as_object().unwrap().len()).map(text).collect()
        };
        rows.as_array().unwrap().iter().map(texts).collect()
    }

    /// Returns the names of the schema's relations of a kind, without partitions.
    async fn relations(&self, kinds: &str) -> BTreeSet<String> {
        let query = format!(
            "select relname as c1 from pg_class
            where relnamespace = 'reveille'::regnamespace and relkind in ({kinds}) and not relispartition"
        );
        self.rows(&query).await.into_iter().map(|mut row| row.remove(0)).collect()
    }

    /// Returns the comment on a relation.
    async fn comment(&self, relation: &str) -> String {
        let query = format!("select obj_description('reveille.{relation}'::regclass) as c1");
        self.rows(&query).await.remove(0).remove(0)
    }

    async fn columns(&self, relation: &str) -> Vec<Column> {
        let query = format!(
            "select attname as c1, format_type(atttypid, atttypmod) as c2, pg_get_expr(adbin, adrelid) as c3,
                col_description(attrelid, attnum) as c4
            from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
            where attrelid = 'reveille.{relation}'::regclass and attnum > 0 and not attisdropped
            order by attnum"
        );
        let column = |row: Vec<String>| {
            let [name, kind, default, comment] = row.try_into().unwrap();
            let (kind, default) = (short(&kind), without_cast(&default));
            Column { name, kind, default, comment }
        };
        self.rows(&query).await.into_iter().map(column).collect()
    }

    /// Returns the functions that are no triggers: name, arguments, result and comment.
    async fn functions(&self) -> Vec<[String; 4]> {
        let query = "select proname as c1, pg_get_function_arguments(oid) as c2, pg_get_function_result(oid) as c3,
                obj_description(oid) as c4
            from pg_proc where pronamespace = 'reveille'::regnamespace and prorettype <> 'trigger'::regtype
            order by proname collate \"C\"";
        self.rows(query).await.into_iter().map(|row| row.try_into().unwrap()).collect()
    }
}

fn short(kind: &str) -> String {
    kind.replace("timestamp with time zone", "timestamptz")
}

/// Returns a default without the cast that the catalog adds.
fn without_cast(default: &str) -> String {
    default.split("::").next().unwrap().replace("NULL", "null")
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn the_page_on_views_says_what_the_catalog_says() {
    let page = "docs/reference/views.md";
    let catalog = Catalog(database().await);
    let views = catalog.relations("'v'").await;
    assert_eq!(parts(page).into_iter().collect::<BTreeSet<_>>(), views, "{page} has each view");
    let mut texts = std::collections::BTreeMap::new();
    for view in views {
        let columns = catalog.columns(&view).await;
        let rows = columns.iter().map(|c| [code(&c.name), c.kind.clone(), markdown(&c.comment)]);
        let comment = wrapped(&markdown(&catalog.comment(&view).await));
        texts.insert(view, format!("{comment}\n\n{}", table(["column", "type", "meaning"], rows)));
    }
    compare_parts(page, |view| texts[view].clone());
}

#[tokio::test]
async fn the_page_on_tables_says_what_the_catalog_says() {
    let page = "docs/reference/tables.md";
    let catalog = Catalog(database().await);
    let mut texts = std::collections::BTreeMap::new();
    let of_a_job: Vec<&str> = TABLES[0].1.split(' ').collect();
    for (name, relied_on) in TABLES {
        let columns = catalog.columns(name).await;
        let has = |name: &&str| columns.iter().any(|column| column.name == *name);
        let relied_on: Vec<&str> = relied_on.split(' ').collect();
        assert!(relied_on.iter().all(has), "{name} has all of {relied_on:?}");
        let rows = columns.iter().filter(|column| relied_on.contains(&column.name.as_str()));
        let rows = rows.map(|c| [code(&c.name), c.kind.clone(), code(&c.default), markdown(&c.comment)]);
        let rows = table(["column", "type", "default", "meaning"], rows);
        let comment = markdown(&catalog.comment(name).await);
        let more = match name {
            "finished_jobs" | "dead_jobs" => {
                let missing = of_a_job.iter().filter(|name| !has(name)).copied();
                format!(" The table has the columns of `jobs`, but not {}, and these:", list(missing))
            }
            _ => String::new(),
        };
        texts.insert(name.to_owned(), format!("{}\n\n{rows}", wrapped(&(comment + &more))));
    }
    let known: BTreeSet<String> = texts.keys().cloned().collect();
    let others = catalog.relations("'r', 'p'").await;
    texts.insert("others".into(), wrapped(&format!("{}.", list(others.difference(&known).map(String::as_str)))));
    let grants = include_str!("../../sql/grants.sql");
    let settable = grants.split("insert (").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
    let settable = list(settable.split(',').map(str::trim));
    texts.insert("settable".into(), wrapped(&format!("{settable}.")));
    assert_eq!(parts(page).iter().collect::<BTreeSet<_>>(), texts.keys().collect(), "{page} has each table");
    compare_parts(page, |part| texts[part].clone());
}

/// Returns a function's signature in lines of at most 100 columns.
fn signature(name: &str, arguments: &str, result: &str) -> String {
    let argument = |text: &str| match text.split_once(" DEFAULT ") {
        Some((argument, default)) => format!("{} default {}", short(argument), without_cast(default)),
        None => short(text),
    };
    let (out, given): (Vec<&str>, Vec<&str>) =
        arguments.split(", ").filter(|text| !text.is_empty()).partition(|argument| argument.starts_with("OUT "));
    let returned = match &out[..] {
        [] => short(result),
        columns => columns.iter().map(|column| short(&column[4..])).collect::<Vec<_>>().join(", "),
    };
    let given: Vec<String> = given.into_iter().map(argument).collect();
    let one_line = format!("reveille.{name}({}) returns {returned}", given.join(", "));
    if one_line.len() <= 100 {
        return one_line;
    }
    let mut lines = vec!["   ".to_owned()];
    for (place, argument) in given.iter().enumerate() {
        let comma = if place + 1 < given.len() { "," } else { "" };
        if lines[lines.len() - 1].len() + argument.len() > 98 {
            lines.push("   ".into());
        }
        *lines.last_mut().unwrap() += &format!(" {argument}{comma}");
    }
    format!("reveille.{name}(\n{}\n) returns {returned}", lines.join("\n"))
}

#[tokio::test]
async fn the_page_on_functions_says_what_the_catalog_says() {
    let page = "docs/reference/functions.md";
    let catalog = Catalog(database().await);
    let functions = catalog.functions().await;
    let shown = parts(page);
    let generate = |part: &str| {
        if part == "others" {
            let others = functions.iter().map(|[name, ..]| name.as_str());
            return wrapped(&format!("{}.", list(others.filter(|name| !shown.iter().any(|shown| shown == name)))));
        }
        let known = functions.iter().find(|[name, ..]| name == part);
        let [name, arguments, result, comment] = known.unwrap_or_else(|| panic!("{page}: no function {part}"));
        format!("```text\n{}\n```\n\n{}", signature(name, arguments, result), wrapped(&markdown(comment)))
    };
    compare_parts(page, generate);
}
