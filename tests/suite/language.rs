//! The language of the project: widths, words and names that do not make a reader stumble.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest line of code, comments and pages. Rows of tables, lines with links, and the book's list of pages may be
/// longer.
const WIDTH: usize = 120;

/// The folders with text that people read.
const FOLDERS: &[&str] =
    &["src", "crates", "sql", "migrations", "tests", "benches", "examples", "docs", ".ci", "python"];
/// The files with text that people read, outside these folders.
const FILES: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CODE_OF_CONDUCT.md",
    "Cargo.toml",
    "deny.toml",
];
/// The folders with text that programs have written.
const WRITTEN_BY_PROGRAMS: &[&str] = &["target", "snapshots", ".venv", ".mypy_cache", ".pytest_cache", "__pycache__"];
const READ_BY_PEOPLE: &[&str] = &["rs", "sql", "md", "sh", "toml", "py", ""];

/// Words of the project's old dialect, with words to write instead. Parts of longer words do not count.
const DIALECT: &[(&str, &str)] = &[
    ("how manieth", "how often, or which"),
    ("so many looks", "the number"),
    ("at most so many", "the number's name"),
    ("is at it", "is already doing it"),
    ("whoever", "the session, role or program that"),
    ("who sleeps", "a sleeping worker"),
    ("who waits", "a waiting caller"),
    ("who enqueues", "the producer"),
    ("held for dead", "declared dead"),
    ("take its leave", "deregister"),
    ("take a worker's leave", "deregister"),
    ("spoilt", "aborted"),
    ("had better", "should"),
    ("for good", "permanently"),
    ("put right", "repair"),
    ("looks up to", "what it does"),
    ("lets go", "releases"),
    ("in a word", "the noun"),
    ("crew", "the worker"),
    ("ticker", "the task that fires schedules"),
    ("how_many", "the noun"),
    ("is_deaf", "cannot receive notifications"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !WRITTEN_BY_PROGRAMS.contains(&name) {
                collect(&path, files);
            }
        } else if READ_BY_PEOPLE.contains(&path.extension().map_or("", |extension| extension.to_str().unwrap())) {
            files.push(path);
        }
    }
}

/// Returns the files that people read, by their paths from the project's root.
fn texts() -> BTreeMap<String, String> {
    let mut files: Vec<PathBuf> = FILES.iter().map(|name| root().join(name)).collect();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut files);
    }
    assert!(files.len() > 250, "{}", files.len());
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    files.into_iter().map(named).collect()
}

#[test]
fn no_line_is_longer_than_120_columns() {
    let mut long = Vec::new();
    for (name, text) in texts() {
        for (place, line) in text.lines().enumerate() {
            let is_row = name.ends_with(".md")
                && (line.starts_with('|') || line.contains("](http") || name == "docs/SUMMARY.md");
            if !is_row && line.chars().count() > WIDTH {
                long.push(format!("{name}:{}", place + 1));
            }
        }
    }
    assert!(long.is_empty(), "{} lines: {long:#?}", long.len());
}

/// Returns true if a text contains these lowercase words, and not only as a part of other words.
fn has_words(text: &str, words: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(words)
        .any(|(place, _)| !text[..place].ends_with(is_letter) && !text[place + words.len()..].starts_with(is_letter))
}

#[test]
fn no_word_of_the_old_dialect_is_left() {
    let mut found = Vec::new();
    for (name, text) in texts() {
        if name == "tests/suite/language.rs" {
            continue;
        }
        for (place, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            for (words, instead) in DIALECT.iter().filter(|(words, _)| has_words(&line, words)) {
                found.push(format!("{name}:{}: {words:?}; say {instead}", place + 1));
            }
        }
    }
    assert!(found.is_empty(), "{} places: {found:#?}", found.len());
}

/// Returns the name of the type that a line declares, if the line declares a type.
fn declared_type(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = ["pub(crate) ", "pub(super) ", "pub "].iter().find_map(|start| line.strip_prefix(start)).unwrap_or(line);
    let rest = ["struct ", "enum ", "trait "].iter().find_map(|start| line.strip_prefix(start))?;
    let length = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    Some(&rest[..length])
}

#[test]
fn two_types_of_one_room_have_different_names() {
    let mut rooms: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (name, text) in texts() {
        let Some(path) = name.strip_suffix(".rs").filter(|_| !name.contains("tests")) else { continue };
        let room = if let Some(path) = path.strip_prefix("src/") {
            path.split('/').next().unwrap().to_owned()
        } else if path.starts_with("crates/cli/src/") {
            path.split('/').take(4).collect::<Vec<_>>().join("/")
        } else {
            continue;
        };
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for declared in code.lines().filter_map(declared_type) {
            rooms.entry((room.clone(), declared.to_owned())).or_default().push(name.clone());
        }
    }
    assert!(rooms.len() > 200, "{}", rooms.len());
    let twice: Vec<_> = rooms.iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

#[test]
fn each_public_struct_with_public_fields_can_grow() {
    let mut closed = Vec::new();
    let mut seen = 0;
    for (name, text) in texts() {
        if !name.starts_with("src/") || !name.ends_with(".rs") {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (place, line) in lines.iter().enumerate() {
            if !(line.starts_with("pub struct ") && line.ends_with('{')) {
                continue;
            }
            let mut fields = lines[place + 1..].iter().take_while(|line| **line != "}");
            if fields.any(|line| line.starts_with("    pub ")) {
                seen += 1;
                let attributes = lines[..place].iter().rev().take_while(|line| line.starts_with("#["));
                if !attributes.into_iter().any(|line| line.contains("non_exhaustive")) {
                    closed.push(format!("{name}:{}: {line}", place + 1));
                }
            }
        }
    }
    assert!(seen > 20, "{seen}");
    assert!(closed.is_empty(), "{closed:#?}");
}

/// Returns the parts of a text that stand between backticks on one line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn each_test_that_a_page_names_exists() {
    let texts = texts();
    let mut missing = Vec::new();
    let mut seen = 0;
    for (page, text) in &texts {
        let is_page =
            page == "ARCHITECTURE.md" || page.starts_with("docs/design/") || page.starts_with("docs/decisions/");
        for quoted in quoted(text).filter(|_| is_page) {
            let Some((module, name)) = quoted.rsplit_once("::") else { continue };
            let is_test =
                name.len() > 15 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !is_test || !name.contains('_') {
                continue;
            }
            seen += 1;
            let files = [
                module.to_owned(),
                format!("tests/suite/{module}.rs"),
                format!("crates/cli/tests/suite/{module}.rs"),
                format!("src/testing/{module}.rs"),
            ];
            let declared = format!("fn {name}(");
            if !files.iter().any(|file| texts.get(file).is_some_and(|text| text.contains(&declared))) {
                missing.push(format!("{page}: {quoted}"));
            }
        }
    }
    assert!(seen > 100, "{seen}");
    assert!(missing.is_empty(), "{missing:#?}");
}
