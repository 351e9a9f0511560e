//! The guide's page on axum quotes this package.

use std::fs;
use std::path::Path;

/// Returns the lines of a text without indentation and empty lines, each with a line end on both sides.
fn plain(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    format!("\n{}\n", lines.join("\n"))
}

#[test]
fn each_block_of_the_page_stands_in_the_source() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(here.join("../../docs/start/axum.md")).unwrap();
    let files = ["src/bin/worker.rs", "src/jobs.rs", "src/lib.rs", "src/main.rs", "src/web.rs"];
    let source: String = files.iter().map(|file| plain(&fs::read_to_string(here.join(file)).unwrap())).collect();

    let blocks: Vec<&str> =
        page.split("```rust,ignore\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 4, "{}", blocks.len());
    for block in blocks {
        assert!(source.contains(&plain(block)), "not in the source:\n{block}");
    }
}
