//! The guide's page on reports quotes this package.

use std::fs;
use std::path::Path;

/// Returns the text without the indentation of its lines.
fn flush_left(text: &str) -> String {
    text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_ignored_block_of_the_page_is_code_of_this_package() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(package.join("../../docs/jobs/reports.md")).unwrap();
    let code = ["src/lib.rs", "src/main.rs"].map(|file| flush_left(&fs::read_to_string(package.join(file)).unwrap()));
    let blocks: Vec<&str> =
        page.split("```rust,ignore\n").skip(1).map(|rest| rest.split("\n```").next().unwrap_or(rest)).collect();
    assert!(blocks.len() >= 2, "the page quotes the middleware and its use");
    for block in blocks {
        let block = flush_left(block);
        assert!(code.iter().any(|code| code.contains(&block)), "not in src:\n{block}");
    }
}
