//! The layers of the code: each folder is a room, and a file imports only from the rooms above its own room.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The rooms and files of each folder, top to bottom. A room imports only from the rooms before it. `mod` is the
/// folder's own `mod.rs`.
const ORDER: &[(&str, &str)] = &[
    ("", "error job queue schedule database driver handler enqueue workflow worker admin testing dev guide lib"),
    (
        "job",
        "mod state workflow_state request retry_policy storable payload outcome trace_context unique check new_job \
         linked graph reserved",
    ),
    ("schedule", "mod ticks"),
    (
        "database",
        "mod params parameters pgpass tls address schema insert json linked connect busy transaction complete_in copy \
         enqueue_on sqlx ends migrate",
    ),
    (
        "driver",
        "claimed kind_count settlement liveness schedules steps mod signal into_driver enqueue memory postgres \
         only_postgres",
    ),
    ("driver/memory", "mod entries limits links store steps schedules ends enqueue_linked workflows admin"),
    (
        "driver/postgres",
        "mod statements hint session heartbeat claim settle rescue schedules upkeep warm listen complete kinds steps \
         links driver",
    ),
    ("driver/postgres/claim", "parameters rows count_running paused limited isolate mod"),
    ("driver/postgres/settle", "durability fence by_id by_place locked mod"),
    (
        "handler",
        "mod attempt cancellation output progress states steps extract metadata durable batch gather middleware \
         propagation encryption",
    ),
    ("handler/encryption", "mod key envelope"),
    ("enqueue", "await_end builder mod emit json run"),
    ("workflow", "members handle inputs mod json start"),
    (
        "worker",
        "identity slot_count options backoff parts pauses bells kind_counts health attempt mod shared wake claim \
         heartbeat upkeep apply_ends fire_schedules drain run",
    ),
    ("worker/attempt", "reservations judge mod settle"),
    ("worker/attempt/settle", "mod record locked"),
    ("worker/wake", "mod listener sleeper"),
    ("worker/claim", "claim_size pace look_budget low_water look ahead slots mod"),
    ("worker/claim/low_water", "tests"),
    ("worker/heartbeat", "mod watch cut_off blocked_threads"),
    (
        "admin",
        "mod iso_time record rights views overview actor actions filter edit runs slices job_row sort jobs page recent \
         follow bulk dead_jobs enqueue prune history queues schedules workers workflow_row workflow_layers \
         workflows job_links step_row doctor \
         metrics http",
    ),
    ("admin/bulk", "action start mod count step"),
    ("testing", "work conformance"),
    (
        "testing/conformance",
        "mod subject claiming settling uniqueness limits control liveness signals schedules steps \
         dependencies workflows working",
    ),
    ("dev", "mod programs proxy fetch server standby"),
];

/// The most lines that a file may have.
const LONGEST_FILE: usize = 400;
/// The most lines that a function may have.
const LONGEST_FUNCTION: usize = 60;
/// The most files that may stand outside a room.
const FILES_AT_THE_TOP: usize = 14;
/// The most names that the crate's root may have.
const NAMES_AT_THE_ROOT: usize = 20;

/// A module, as the names that lead to it. The last name of a folder's own file is `mod`.
type Module = Vec<String>;

fn source() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}

fn command() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/crates/cli"))
}

fn read(root: &Path, folder: &Path, found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            read(root, &entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let path = entry.strip_prefix(root).unwrap().with_extension("");
            let module = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            found.insert(module, fs::read_to_string(&entry).unwrap());
        }
    }
}

fn all() -> BTreeMap<Module, String> {
    let mut found = BTreeMap::new();
    read(source(), source(), &mut found);
    assert!(found.len() > 80, "{}", found.len());
    found
}

/// Returns the part of a file that may import: no comments, no tests, and no `mod` or `pub use`, which only list names.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let text = text.split("#[cfg(test)]\npub(crate) mod tests").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    let mut code = String::new();
    let mut is_export = false;
    for line in lines {
        is_export |= line.trim_start().starts_with("pub use ");
        if !is_export {
            code += line;
            code.push('\n');
        }
        is_export &= !line.contains(';');
    }
    code
}

/// Returns the paths that begin here. `a::{b, c::d}` yields `a::b` and `a::c::d`.
fn paths(text: &str) -> Vec<Vec<&str>> {
    let text = text.trim_start();
    if let Some(inner) = text.strip_prefix('{') {
        let mut depth = 0;
        let parts = inner.split(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth < 0 || c == ',' && depth == 0
        });
        // Text after the closing brace is no part of this list.
        let end = inner.char_indices().scan(1, |depth, (place, c)| {
            *depth += i32::from(c == '{') - i32::from(c == '}');
            Some((place, *depth))
        });
        let end = end.into_iter().find(|(_, depth)| *depth == 0).map_or(inner.len(), |(place, _)| place);
        return parts
            .filter(|part| (part.as_ptr() as usize - inner.as_ptr() as usize) < end && !part.trim().is_empty())
            .flat_map(paths)
            .collect();
    }
    let length = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(length);
    match rest.strip_prefix("::") {
        Some(rest) if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '{') => {
            paths(rest).into_iter().map(|path| [&[name], &path[..]].concat()).collect()
        }
        _ => vec![vec![name]],
    }
}

/// Returns the modules from which a file imports.
fn imports(module: &Module, text: &str, all: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let code = code(text);
    let starts = ["crate::", "super::"].iter().flat_map(|start| code.match_indices(start).map(|(place, _)| place));
    let is_word = |place: usize| !code[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let mut found = BTreeSet::new();
    for path in starts.filter(|place| is_word(*place)).flat_map(|place| paths(&code[place..])) {
        let is_folder = module.last().is_some_and(|name| name == "mod");
        let mut base = if is_folder { module[..module.len() - 1].to_vec() } else { module.clone() };
        let mut path = &path[..];
        if path[0] == "crate" {
            (base, path) = (Vec::new(), &path[1..]);
        }
        while path.first() == Some(&"super") {
            base.pop();
            path = &path[1..];
        }
        base.extend(path.iter().map(|name| (*name).to_owned()));
        // The imported module is the longest part of the path that is a file.
        for length in (1..=base.len()).rev() {
            let file = base[..length].to_vec();
            let folder = [&base[..length], &["mod".to_owned()]].concat();
            if let Some(imported) = [file, folder].into_iter().find(|module| all.contains_key(module)) {
                found.insert(imported);
                break;
            }
        }
    }
    found.remove(module);
    found
}

/// Returns the index of a module in its folder's list. Panics if the list lacks the module.
fn place(folder: &[String], name: &str) -> usize {
    let folder = folder.join("/");
    let (_, order) = ORDER.iter().find(|(room, _)| *room == folder).unwrap_or_else(|| panic!("{folder} has no order"));
    let place = order.split(' ').position(|member| member == name);
    place.unwrap_or_else(|| panic!("{name} has no place in {folder:?}"))
}

#[test]
fn a_file_imports_only_from_rooms_above_its_own() {
    let all = all();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (module, text) in &all {
        for imported in imports(module, text, &all) {
            // A file and the folder of its tests have the same name, and count as one part.
            let most = module.len().min(imported.len()) - 1;
            let common = module.iter().zip(&imported).take(most).take_while(|(own, theirs)| own == theirs).count();
            let folder = &module[..common];
            let (own, theirs) = (place(folder, &module[common]), place(folder, &imported[common]));
            count += 1;
            if theirs > own {
                wrong.push(format!("{} imports {}", module.join("::"), imported.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 200, "{count} imports were seen");
}

#[test]
fn every_file_has_its_place_in_the_order() {
    let listed: BTreeSet<String> = ORDER
        .iter()
        .flat_map(|(room, order)| order.split(' ').map(move |name| format!("{room}/{name}")))
        .map(|path| path.trim_start_matches('/').to_owned())
        .collect();
    let mut there = BTreeSet::new();
    for module in all().keys() {
        for length in 1..=module.len() {
            there.insert(module[..length].join("/"));
        }
    }
    assert_eq!(listed, there);
}

/// Returns the functions that are too long, with their lines: from `fn` to the closing brace at the same depth.
fn long_functions(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let is_function = ["fn ", "async fn ", "pub fn ", "pub async fn "].iter().any(|start| {
            let line = line.trim_start();
            let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub(super) ")).unwrap_or(line);
            line.starts_with(start) && !line.ends_with([';', '}'])
        });
        let end = format!("{:indent$}}}", "");
        let last = lines[first..].iter().position(|line| *line == end);
        if let Some(count) = last.filter(|count| is_function && *count + 1 > LONGEST_FUNCTION) {
            long.push(format!("{} ({} lines)", line.trim(), count + 1));
        }
    }
    long
}

#[test]
fn no_file_outgrows_its_room_and_no_function_its_screen() {
    let mut all = all();
    read(command(), command(), &mut all);
    let files = all.iter().filter(|(_, text)| text.lines().count() > LONGEST_FILE);
    let files: Vec<_> = files.map(|(module, text)| (module.join("::"), text.lines().count())).collect();
    assert!(files.is_empty(), "{files:?}");
    let functions: Vec<_> = all.values().flat_map(|text| long_functions(text)).collect();
    assert!(functions.is_empty(), "{functions:#?}");
}

#[test]
fn few_names_stand_at_the_crates_root_and_few_files_outside_a_room() {
    let lib = fs::read_to_string(source().join("lib.rs")).unwrap();
    let mut names = BTreeSet::new();
    for line in lib.lines() {
        if let Some(name) = line.strip_prefix("pub mod ") {
            names.insert(name.trim_end_matches(';'));
        } else if let Some(path) = line.strip_prefix("pub use ") {
            let exported = path.trim_end_matches(';').rsplit("::").next().unwrap();
            names.extend(exported.trim_matches(['{', '}']).split(", "));
        }
    }
    assert!((15..=NAMES_AT_THE_ROOT).contains(&names.len()), "{names:?}");
    let files = all().keys().filter(|module| module.len() == 1).count();
    assert!((2..=FILES_AT_THE_TOP).contains(&files), "{files}");
}
