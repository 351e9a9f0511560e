//! The pages on configuration and on environment variables name every setting and variable, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::generated::root;

/// The folders and files whose programs may read or set environment variables.
const PROGRAMS: [&str; 2] = ["src", "crates/cli/src"];
const TESTS: [&str; 4] = ["tests/suite", "crates/cli/tests", "benches", ".ci"];

/// Calls of which the first argument is a variable's name.
const READ: [&str; 3] = ["var(\"", "var_os(\"", "variable(\""];
const SET: [&str; 2] = [".env(\"", ".env_remove(\""];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the names in the first column of the tables below a heading of a page, without a call's arguments.
fn rows(page: &str, heading: &str) -> BTreeSet<String> {
    let text = read(page);
    let section = text.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("{page} has no heading {heading:?}"));
    let first = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    first.map(|name| name.trim_start_matches('.').split('(').next().unwrap().to_owned()).collect()
}

/// Returns what is declared in a block of a file: the names after `keyword`, but for some.
fn declared(file: &str, block: &str, keyword: &str, but: &[&str]) -> BTreeSet<String> {
    let text = read(file);
    let start = format!("\n{block} {{\n");
    let block = text.split(&start).nth(1).unwrap_or_else(|| panic!("{file} has no {block}"));
    let block = block.split("\n}\n").next().unwrap();
    let names = block.lines().filter_map(|line| line.strip_prefix("    ")?.strip_prefix(keyword));
    let names = names.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned());
    names.filter(|name| !but.contains(&name.as_str())).collect()
}

#[test]
fn the_page_on_configuration_has_every_setting() {
    let page = "docs/reference/configuration.md";
    let job = "pub trait Job: Serialize + DeserializeOwned + Send + 'static";
    let mut of_a_kind = declared("src/job/mod.rs", job, "const ", &[]);
    of_a_kind.extend(declared("src/job/mod.rs", job, "fn ", &[]));
    let settings = [
        ("A worker", declared("src/worker/mod.rs", "impl WorkerBuilder", "pub fn ", &["build"])),
        ("A connection", declared("src/database/mod.rs", "impl DatabaseOptions", "pub fn ", &[])),
        ("A queue", declared("src/queue.rs", "impl QueueSettings", "pub fn ", &["new"])),
        ("A kind", of_a_kind),
        ("A batch", declared("src/handler/gather.rs", "impl Gather", "pub fn ", &[])),
    ];
    for (heading, settings) in settings {
        assert!(settings.len() > 1, "{heading}: {settings:?}");
        assert_eq!(rows(page, heading), settings, "{page}, {heading}");
    }
}

fn collect(path: &Path, texts: &mut Vec<String>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), texts));
    } else if !path.to_string_lossy().contains("target") {
        texts.extend(fs::read_to_string(path));
    }
}

fn texts(folders: &[&str]) -> Vec<String> {
    let mut texts = Vec::new();
    folders.iter().for_each(|folder| collect(&root().join(folder), &mut texts));
    texts
}

/// Returns the names that begin with `start`, wherever they stand in a text.
fn names<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).map(move |(place, _)| {
        let rest = &text[place..];
        let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())]
    })
}

/// Returns the names that stand as the first argument of these calls.
fn first_arguments<'a>(text: &'a str, calls: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    calls.iter().flat_map(move |call| text.split(call).skip(1).map(|rest| rest.split('"').next().unwrap()))
}

#[test]
fn the_page_on_environment_variables_has_every_variable() {
    // The names of variables are made up here.
    let this_file = include_str!("configuration.rs");
    let (programs, tests) = (texts(&PROGRAMS), texts(&TESTS));
    let mut known = BTreeSet::new();
    for text in programs.iter().chain(&tests).filter(|text| *text != this_file) {
        known.extend(names(text, "REVEILLE_"));
        known.extend(names(text, "DATABASE_URL"));
        known.extend(first_arguments(text, &READ));
    }
    for text in &programs {
        known.extend(first_arguments(text, &SET));
        known.extend(text.split('"').filter(|quoted| quoted.starts_with("PG") && quoted.len() > 2));
    }
    let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    // Cargo sets `CARGO` for the programs that it runs.
    let is_ours = |name: &&str| !name.is_empty() && *name != "CARGO";
    let known: BTreeSet<&str> = known.into_iter().filter(is_ours).filter(is_name).collect();
    let page = read("docs/reference/environment.md");
    let first = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let described: BTreeSet<&str> = first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let missing: Vec<_> = known.difference(&described).collect();
    let gone: Vec<_> = described.difference(&known).collect();
    assert!(missing.is_empty() && gone.is_empty(), "the page lacks {missing:?}, and no program reads or sets {gone:?}");
    assert!(known.len() > 50, "{}", known.len());
}
