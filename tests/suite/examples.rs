//! Each example runs to its end and prints the lines that its comment shows.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio_postgres::SimpleQueryMessage;

use crate::harness::{database, soon};

/// The number of examples that run at once.
const AT_ONCE: usize = 3;
/// This example runs until Ctrl-C.
const ENDLESS: &str = "hello";
/// This example runs without `DATABASE_URL`, on a server of its own that has the setting that the example needs.
const ON_ITS_OWN_SERVER: &str = "prepared";

/// An example, as its comment describes it.
struct Example {
    name: String,
    comment: String,
}

impl Example {
    /// Returns all examples, found by their files.
    fn all() -> Vec<Example> {
        let files = fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path());
        let mut examples: Vec<Example> =
            files.filter(|file| file.extension().is_some_and(|end| end == "rs")).map(read).collect();
        examples.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(examples.len() >= 18, "{}", examples.len());
        examples
    }

    /// Returns the lines that the example prints. Each `…` stands for any text.
    fn lines(&self) -> Vec<&str> {
        let shown = self.comment.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
        let lines: Vec<&str> = shown.unwrap_or_default().lines().collect();
        assert!(!lines.is_empty(), "the comment of the example {} does not show what the example prints", self.name);
        lines
    }

    fn program(&self) -> PathBuf {
        programs().join(&self.name)
    }
}

fn read(file: PathBuf) -> Example {
    let text = fs::read_to_string(&file).unwrap();
    let comment = text.lines().map_while(|line| line.strip_prefix("//!"));
    let comment = comment.flat_map(|line| [line.strip_prefix(' ').unwrap_or(line), "\n"]).collect();
    Example { name: file.file_stem().unwrap().to_str().unwrap().to_owned(), comment }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the folder of the examples' programs. It is next to the folder of the tests' programs.
fn programs() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples")
}

/// Returns true if a program is missing, or is older than a file that the program is made of.
fn is_stale(program: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let made_of = fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let files = made_of.split_once(": ").map_or("", |(_, files)| files).split_whitespace();
    let newest = files.filter_map(|file| changed(Path::new(file))).max().unwrap_or(SystemTime::UNIX_EPOCH);
    changed(program).is_none_or(|built| built < newest)
}

/// Builds the examples, if need be: `cargo test` has built them, and `cargo test --test suite` has not.
async fn build(examples: &[Example]) {
    if !examples.iter().any(|example| is_stale(&example.program())) {
        return;
    }
    let target = programs().ancestors().nth(2).unwrap().to_owned();
    let profile = match programs().ancestors().nth(1).unwrap().file_name().unwrap().to_str().unwrap() {
        "debug" => "dev".to_owned(),
        profile => profile.to_owned(),
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo
        .current_dir(root())
        .args(["build", "--quiet", "--examples", "--profile", &profile, "--target-dir"])
        .arg(target);
    assert!(cargo.status().await.unwrap().success(), "the examples can be built");
}

/// Returns true if a line is as expected.
fn fits(line: &str, expected: &str) -> bool {
    let Some((before, behind)) = expected.split_once('…') else { return line == expected };
    let Some(rest) = line.strip_prefix(before) else { return false };
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| fits(&rest[at..], behind))
}

/// Runs an example on a fresh database. Returns what is wrong with its output or its end.
async fn run(example: &Example) -> Option<String> {
    let (name, expected) = (&example.name, example.lines());
    let database = database().await;
    let mut command = Command::new(example.program());
    command.env("NO_COLOR", "1").env("DATABASE_URL", &database.address);
    if name == ON_ITS_OWN_SERVER {
        command.env_remove("DATABASE_URL");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut running = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut stderr = running.stderr.take().unwrap();
    let errors = tokio::spawn(async move {
        let mut errors = String::new();
        stderr.read_to_string(&mut errors).await.map(|_| errors)
    });
    let mut stdout = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut lines = Vec::new();
    while let Some(line) = soon(name, stdout.next_line()).await.unwrap() {
        lines.push(line);
        if name == ENDLESS && lines.len() == expected.len() {
            let process = running.id().unwrap().to_string();
            assert!(Command::new("kill").args(["-INT", &process]).status().await.unwrap().success());
        }
    }
    let status = soon(name, running.wait()).await.unwrap();
    let as_expected =
        lines.len() == expected.len() && lines.iter().zip(&expected).all(|(line, expected)| fits(line, expected));
    if status.success() && as_expected {
        return None;
    }
    let (lines, errors) = (lines.join("\n"), soon(name, errors).await.unwrap().unwrap());
    Some(format!("{name}: {status}\nexpected:\n{}\nprinted:\n{lines}\n{errors}", expected.join("\n")))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_example_prints_what_its_comment_shows() {
    let examples = Example::all();
    build(&examples).await;
    let runs = futures::stream::iter(&examples).map(run).buffer_unordered(AT_ONCE);
    let wrong: Vec<String> = runs.filter_map(async |wrong| wrong).collect().await;
    assert!(wrong.is_empty(), "{} examples:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn each_example_says_how_to_run_it_and_names_a_page() {
    for Example { name, comment } in Example::all() {
        assert!(comment.contains(&format!("`cargo run --example {name}`")), "{name} does not say how to run it");
        let pages: Vec<&str> = comment.split('`').filter(|part| part.starts_with("docs/")).collect();
        assert!(!pages.is_empty(), "{name} names no page of the guide");
        for page in pages {
            assert!(root().join(page).is_file(), "{name} names {page}, which does not exist");
        }
    }
}

#[test]
fn the_list_of_the_examples_is_complete() {
    let list = fs::read_to_string(root().join("examples/README.md")).unwrap();
    let rows = list.lines().filter_map(|line| line.strip_prefix("| [`")?.split('`').next());
    let listed: BTreeSet<&str> = rows.collect();
    let names: Vec<String> = Example::all().into_iter().map(|example| example.name).collect();
    let missing: Vec<&String> = names.iter().filter(|name| !listed.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for listed in listed {
        let exists =
            [format!("{listed}.rs"), listed.to_owned()].iter().any(|file| root().join("examples").join(file).exists());
        assert!(exists, "{listed} does not exist");
    }
    assert!(list.len() < 4000, "{}", list.len());
}

#[tokio::test]
async fn the_statements_in_enqueue_sql_enqueue_as_they_say() {
    let database = database().await;
    let statements = fs::read_to_string(root().join("examples/enqueue.sql")).unwrap();
    let answers = database.client().await.simple_query(&statements).await.unwrap();
    let rows: Vec<String> = answers
        .into_iter()
        .filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .map(|row| (0..row.len()).map(|column| row.get(column).unwrap_or("null")).collect::<Vec<_>>().join(" "))
        .collect();
    // The receipt's job and order; the report's job, twice; the queues, with their ready, delayed, running and dead
    // jobs.
    assert_eq!(rows, ["1 1", "2 f", "2 t", "default 101 0 0 0", "reports 0 1 0 0"]);
    let debounced = "select payload -> 'again' = 'true' and available_at > now() + interval '9 minutes'
        from reveille.jobs where queue = 'reports'";
    assert_eq!(database.value(debounced).await, true);
}
