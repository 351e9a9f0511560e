//! The compiler's messages about wrong handlers. Each message names the wrong argument or type, and says what to do.
//!
//! Each `tests/ui/NAME.rs` except `right.rs` must not compile. The compiler's message must contain each line of
//! `tests/ui/NAME.stderr`. The rest of the message is not compared, because it differs between versions of the
//! compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Returns the folder with this test's libraries.
fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// Returns the builds of a library, latest first. Builds with other features or an earlier compiler stay in the folder
/// too.
fn builds(name: &str) -> Vec<PathBuf> {
    let start = format!("lib{name}-");
    let changed =
        |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut found: Vec<PathBuf> = fs::read_dir(libraries()).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(&start) && name.ends_with(".rlib")
    });
    found.sort_by_key(|path| std::cmp::Reverse(changed(path)));
    found
}

/// Compiles `tests/ui/NAME.rs` with these libraries. Returns true if the compiler accepts it, and the compiler's
/// message.
fn check(name: &str, [reveille, serde]: [&Path; 2]) -> (bool, String) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ui"));
    let output = std::env::temp_dir().join(format!("reveille-ui-{}-{name}", std::process::id()));
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let checked = Command::new(compiler)
        .args(["--edition=2024", "--crate-type=bin", "--emit=metadata", "--color=never", "--extern"])
        .arg(format!("reveille={}", reveille.display()))
        .arg("--extern")
        .arg(format!("serde={}", serde.display()))
        .arg("-L")
        .arg(format!("dependency={}", libraries().display()))
        .arg("-o")
        .arg(&output)
        .arg(folder.join(format!("{name}.rs")))
        .output()
        .unwrap();
    let _ = fs::remove_file(&output);
    // With some features of the library, another `Result` is known to the compiler, which then writes this path.
    let message = String::from_utf8_lossy(&checked.stderr).replace("`std::result::Result<", "`Result<");
    (checked.status.success(), message)
}

#[test]
fn the_message_about_a_wrong_handler_names_what_is_wrong() {
    let (reveille, serde) = (builds("reveille"), builds("serde"));
    let pairs = reveille.iter().flat_map(|reveille| serde.iter().map(move |serde| [&**reveille, &**serde]));
    let fits = |pair: &[&Path; 2]| check("right", *pair).0;
    let pair =
        pairs.into_iter().find(fits).unwrap_or_else(|| panic!("{}", check("right", [&reveille[0], &serde[0]]).1));
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ui"));
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let expected: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "stderr")).collect();
    assert!(expected.len() > 5, "{expected:?}");
    for file in expected {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let (compiles, message) = check(name, pair);
        assert!(!compiles, "{name} compiles");
        for line in fs::read_to_string(&file).unwrap().lines() {
            assert!(message.contains(line.trim()), "{name}: {line:?} is not in\n{message}");
        }
    }
}
