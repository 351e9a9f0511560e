//! The house stands on its layers: a file imports only from those above it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Top to bottom; files of one layer may not import each other unless they stand in order.
const ORDER: &[&str] = &[
    "error",
    "retry",
    "payload",
    "trace",
    "unique",
    "job",
    "queue",
    "outcome",
    "schedule",
    "database",
    "executor",
    "driver",
    "progress",
    "extract",
    "handler",
    "batch",
    "middleware",
    "finished",
    "enqueue",
    "parts",
    "backoff",
    "held",
    "pauses",
    "wake",
    "listener",
    "sleeper",
    "look",
    "last_look",
    "marks",
    "next_due",
    "how_many",
    "attempt",
    "settle",
    "slots",
    "claim",
    "lease",
    "upkeep",
    "ticker",
    "worker",
    "crew",
    "drain",
    "testing",
    "admin",
    "doctor",
    "metrics",
    "dev",
    "guide",
    "lib",
];

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() && !entry.ends_with("bin") {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let path = entry.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
            let room =
                path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
            found.push((room, fs::read_to_string(&entry).unwrap()));
        }
    }
}

fn all() -> Vec<(String, String)> {
    let mut found = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut found);
    found
}

#[test]
fn a_file_imports_only_from_layers_above_it() {
    let place: HashMap<&str, usize> = ORDER.iter().enumerate().map(|(place, room)| (*room, place)).collect();
    let mut wrong = Vec::new();
    for (room, text) in all().iter().filter(|(room, _)| room != "lib") {
        let own = place.get(room.as_str()).unwrap_or_else(|| panic!("the room {room} has no place in the order"));
        for import in text.split("crate::").skip(1) {
            let imported: String = import.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if place.get(imported.as_str()).is_some_and(|theirs| theirs > own) {
                wrong.push(format!("{room} imports {imported}"));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn no_file_outgrows_its_room() {
    let lines: Vec<(String, usize)> = all().into_iter().map(|(room, text)| (room, text.lines().count())).collect();
    let long: Vec<_> = lines.iter().filter(|(_, lines)| *lines > 420).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn the_crates_root_has_few_names() {
    let lib = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    let exported = lib.split("pub use ").skip(1).map(|export| export.split(';').next().unwrap());
    let names: Vec<&str> = exported
        .flat_map(|export| export.rsplit("::").next().unwrap().split(','))
        .map(|name| name.trim_matches(|c: char| !c.is_alphanumeric() && c != '_'))
        .filter(|name| !name.is_empty())
        .collect();
    assert!((10..=20).contains(&names.len()), "{names:?}");
}
