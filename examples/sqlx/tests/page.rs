//! The guide's page on sqlx quotes this package.

use std::fs;
use std::path::Path;

/// Returns the text without the indentation of its lines.
fn flush_left(text: &str) -> String {
    text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_ignored_block_of_the_page_is_code_of_this_package() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(package.join("../../docs/clients/sqlx.md")).unwrap();
    let code = flush_left(&fs::read_to_string(package.join("src/lib.rs")).unwrap());
    let blocks: Vec<&str> =
        page.split("```rust,ignore\n").skip(1).map(|rest| rest.split("\n```").next().unwrap_or(rest)).collect();
    assert!(blocks.len() >= 3, "{}", blocks.len());
    for block in blocks {
        assert!(code.contains(&flush_left(block)), "not in src:\n{block}");
    }
}
