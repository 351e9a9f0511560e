//! The blocks of code on the pages: each names its language, and the SQL of the guide runs.

use std::fs;

use tokio_postgres::Client;

use crate::generated::root;
use crate::harness::{database, soon};
use crate::pages::{guide_name, pages};

/// The languages that a block may be in. `text` is for all that nobody runs, such as output.
const LANGUAGES: [&str; 14] =
    ["rust", "sql", "sh", "toml", "yaml", "json", "ini", "dockerfile", "text", "python", "ruby", "elixir", "go", "js"];
/// The attributes of a block of Rust that rustdoc compiles.
const COMPILED: [&str; 3] = ["no_run", "should_panic", "compile_fail"];
/// The pages with Rust that needs other crates, so that rustdoc cannot compile it. The example that has this code is
/// compiled instead. With a path, this module compares the page with the example; otherwise the example does.
const BY_EXAMPLE: [(&str, Option<&str>); 7] = [
    ("docs/clients/diesel.md", None),
    ("docs/clients/sea-orm.md", None),
    ("docs/clients/sqlx.md", None),
    ("docs/start/axum.md", None),
    ("docs/jobs/reports.md", None),
    ("docs/features/dashboard.md", Some("examples/dashboard/src/lib.rs")),
    ("docs/features/tracing.md", Some("examples/opentelemetry/src/main.rs")),
];

/// Statements that change the whole server, which a page's block must not do to the server of the tests.
const ON_THE_SERVER: [&str; 10] = [
    "create role",
    "create user",
    "create database",
    "create tablespace",
    "alter role",
    "alter user",
    "alter system",
    "alter database",
    "drop role",
    "drop database",
];
/// The tables of an application, for the guide's statements.
const TABLES: &str = "
    create table users (id bigint generated always as identity primary key, email text);
    create table orders (id bigint generated always as identity primary key, total numeric);
    set statement_timeout = '30s'";

/// A block of code on a page.
struct Block {
    /// The number of the block's first line of code.
    line: usize,
    language: String,
    code: String,
    is_closed: bool,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (place, line) in page.lines().enumerate() {
        let open = blocks.last_mut().filter(|block| !block.is_closed);
        match (line.trim_start().strip_prefix("```"), open) {
            (Some(_), Some(block)) => block.is_closed = true,
            (Some(language), None) => {
                let language = language.trim().to_owned();
                blocks.push(Block { line: place + 2, language, code: String::new(), is_closed: false });
            }
            (None, Some(block)) => block.code += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    blocks
}

/// Returns what is wrong with the name of a block's language.
fn fault(page: &str, block: &Block) -> Option<String> {
    let (language, attributes) = block.language.split_once(',').unwrap_or((&block.language, ""));
    if !block.is_closed {
        return Some("the block has no end".into());
    }
    if language == "rust" && attributes == "ignore" {
        let by_example = BY_EXAMPLE.iter().find(|(checked, _)| *checked == page);
        return by_example.is_none().then(|| "rustdoc ignores this block; make it compile, with hidden lines".into());
    }
    let compiles = attributes.is_empty() || attributes.split(',').all(|attribute| COMPILED.contains(&attribute));
    if LANGUAGES.contains(&language) && (attributes.is_empty() || language == "rust" && compiles) {
        return None;
    }
    Some(format!("{:?} is no known language; use one of {}", block.language, LANGUAGES.join(", ")))
}

#[test]
fn each_block_of_code_names_its_language() {
    let (mut seen, mut faults) = (0, Vec::new());
    for (page, text) in pages() {
        faults.extend(
            text.lines()
                .enumerate()
                .filter(|(_, line)| line.trim_start().starts_with("~~~"))
                .map(|(place, _)| format!("{page}:{}: begin a block with three backticks", place + 1)),
        );
        for block in blocks(&text) {
            seen += 1;
            faults.extend(fault(&page, &block).map(|fault| format!("{page}:{}: {fault}", block.line - 1)));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 50, "{seen} blocks were seen");
}

#[test]
fn code_with_other_crates_is_the_code_of_an_example() {
    let pages = pages();
    let lines = |text: &str| text.lines().map(|line| format!("{}\n", line.trim())).collect::<String>();
    for (page, example) in BY_EXAMPLE.iter().filter_map(|(page, example)| Some((*page, (*example)?))) {
        let code = lines(&fs::read_to_string(root().join(example)).unwrap());
        for block in blocks(&pages[page]).iter().filter(|block| block.language == "rust,ignore") {
            assert!(code.contains(&lines(&block.code)), "{page}:{}: {example} has no such lines", block.line);
        }
    }
}

/// Returns the length of the quoted text, the comment or the single character that a text begins with.
fn token(text: &str) -> usize {
    let up_to = |start: usize, end: &str| text[start..].find(end).map_or(text.len(), |place| start + place + end.len());
    let first = text.chars().next().map_or(0, char::len_utf8);
    match text {
        _ if text.starts_with('\'') => up_to(1, "'"),
        _ if text.starts_with('"') => up_to(1, "\""),
        _ if text.starts_with("--") => up_to(2, "\n"),
        _ if text.starts_with("/*") => up_to(2, "*/"),
        _ if text.starts_with('$') => {
            let tag = text[1..].find('$').map(|place| &text[..place + 2]);
            let is_tag = |tag: &&str| tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_');
            tag.filter(is_tag).map_or(first, |tag| up_to(tag.len(), tag))
        }
        _ => first,
    }
}

/// Returns the statements of a block of SQL, each with the number of its first line. psql sends them one by one, too.
fn statements(block: &Block) -> Vec<(usize, &str)> {
    let (mut statements, mut begin, mut at) = (Vec::new(), 0, 0);
    while at < block.code.len() {
        let rest = &block.code[at..];
        let is_blank = block.code[begin..at].trim().is_empty();
        let length = token(rest);
        at += length;
        if is_blank && (rest.starts_with("--") || rest.starts_with("/*")) {
            begin = at;
        } else if rest.starts_with(';') || at == block.code.len() {
            let statement = block.code[begin..at].trim();
            let line = block.line + block.code[..at].trim_end().matches('\n').count() - statement.matches('\n').count();
            if !statement.trim_matches(';').is_empty() {
                statements.push((line, statement));
            }
            begin = at;
        }
    }
    statements
}

/// Runs the statements of a page's block up to the first failure, and returns the failure.
async fn failure(client: &Client, block: &Block) -> Option<String> {
    for (line, statement) in statements(block) {
        let words = statement.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
        // A mapping of users belongs to its database.
        let is_mapping = words.starts_with("create user mapping ");
        if let Some(words) = ON_THE_SERVER.iter().find(|start| words.starts_with(*start)).filter(|_| !is_mapping) {
            return Some(format!("{line}: {words} changes the whole server; mark the block as text"));
        }
        if let Err(error) = soon(statement, client.simple_query(statement)).await {
            let message = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            // The next block begins outside the failed transaction.
            let _ = client.simple_query("rollback").await;
            return Some(format!("{line}: {message}"));
        }
    }
    None
}

#[tokio::test]
async fn the_sql_of_each_guide_page_runs() {
    let (mut seen, mut failures) = (0, Vec::new());
    for (page, text) in pages().iter().filter(|(page, _)| guide_name(page).is_some()) {
        let blocks: Vec<Block> = blocks(text).into_iter().filter(|block| block.language == "sql").collect();
        if blocks.is_empty() {
            continue;
        }
        let database = database().await;
        let client = database.client().await;
        client.batch_execute(TABLES).await.unwrap();
        for block in &blocks {
            seen += 1;
            failures.extend(failure(&client, block).await.map(|failure| format!("{page}:{failure}")));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(seen > 5, "{seen} blocks were run");
}

#[test]
fn a_block_of_sql_is_split_as_psql_splits_it() {
    let code = "-- one; of\nselect 'a;''b', \"c;\"; /* ; */\n\ndo $$ begin; end $$;\nselect $x$;$x$ from $1 -- ;\n;\n\
        select\n2";
    let block = Block { line: 10, language: "sql".into(), code: code.into(), is_closed: true };
    let expected = [
        (11, "select 'a;''b', \"c;\";"),
        (13, "do $$ begin; end $$;"),
        (14, "select $x$;$x$ from $1 -- ;\n;"),
        (16, "select\n2"),
    ];
    assert_eq!(statements(&block), expected);
}
