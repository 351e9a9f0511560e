//! Finds the library's public items by their places in the documentation at docs.rs.

use std::fs;
use std::path::PathBuf;

use crate::generated::root;

/// A module's source, and the folder of its submodules.
struct Module {
    source: String,
    folder: PathBuf,
}

impl Module {
    fn crates_root() -> Module {
        Module { source: fs::read_to_string(root().join("src/lib.rs")).unwrap(), folder: root().join("src") }
    }

    fn child(&self, name: &str) -> Option<Module> {
        let folder = self.folder.join(name);
        let files = [folder.with_extension("rs"), folder.join("mod.rs")];
        files.iter().find_map(|file| fs::read_to_string(file).ok()).map(|source| Module { source, folder })
    }

    fn is_public(&self, child: &str) -> bool {
        self.source.lines().any(|line| line == format!("pub mod {child};"))
    }

    /// Returns the source of the file that defines an item of this module. The documentation shows an item where it is
    /// defined, or where it is exported from a private module.
    fn defines(&self, kind: &str, name: &str) -> Option<String> {
        let starts = [format!("pub {kind} {name}"), format!("pub async {kind} {name}")];
        let is_item = |line: &str| {
            let rest = starts.iter().find_map(|start| line.strip_prefix(start.as_str()));
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        if self.source.lines().any(is_item) {
            return Some(self.source.clone());
        }
        let exports = self.source.split("\npub use ").skip(1).filter_map(|export| export.split(';').next());
        exports.filter_map(|export| self.exported(export, kind, name)).next()
    }

    /// Returns the source of the file that defines an exported item, if the export begins at a private module.
    fn exported(&self, export: &str, kind: &str, name: &str) -> Option<String> {
        let (path, names) = export.rsplit_once("::")?;
        names.split(|c: char| !c.is_alphanumeric() && c != '_').find(|exported| *exported == name)?;
        let (mut module, mut is_public) = (None::<Module>, true);
        for part in path.split("::") {
            if part == "crate" {
                module = Some(Module::crates_root());
                continue;
            }
            let parent = module.as_ref().unwrap_or(self);
            is_public &= parent.is_public(part);
            module = Some(parent.child(part)?);
        }
        module.filter(|_| !is_public)?.defines(kind, name)
    }
}

/// Returns why the documentation has no item at a place such as `worker/struct.Worker.html#method.builder`.
pub fn fault(place: &str) -> Option<String> {
    let (path, anchor) = place.split_once('#').unwrap_or((place, ""));
    let (modules, file) = path.rsplit_once('/').unwrap_or(("", path));
    let mut module = Module::crates_root();
    for name in modules.split('/').filter(|name| !name.is_empty()) {
        match module.child(name).filter(|_| module.is_public(name)) {
            Some(child) => module = child,
            None => return Some(format!("no public module {name}")),
        }
    }
    if file == "index.html" || file.is_empty() {
        return None;
    }
    let Some((kind, name)) = file.strip_suffix(".html").and_then(|item| item.split_once('.')) else {
        return Some("no item; write it like worker/struct.Worker.html".into());
    };
    let keyword = if kind == "constant" { "const" } else { kind };
    let Some(source) = module.defines(keyword, name) else {
        return Some(format!("no {kind} {name} is defined in this module"));
    };
    let member = anchor.rsplit('.').next().unwrap_or_default();
    let declared =
        [format!("fn {member}("), format!("fn {member}<"), format!("    {member}"), format!("const {member}:")];
    (!anchor.is_empty() && !declared.iter().any(|text| source.contains(text)))
        .then(|| format!("{kind} {name} has no {member}"))
}

#[test]
fn items_are_found_where_the_documentation_shows_them() {
    let shown = [
        "worker/struct.Worker.html#method.builder",
        "enqueue/fn.enqueue.html",
        "job/enum.Outcome.html",
        "struct.Error.html",
        "admin/struct.QueueSettings.html",
        "handler/trait.Handler.html",
        "enqueue/index.html",
    ];
    for place in shown {
        assert_eq!(fault(place), None, "{place}");
    }
    let elsewhere = [
        "struct.Worker.html",
        "worker/struct.Outcome.html",
        "job/struct.Outcome.html",
        "queue/struct.QueueSettings.html",
        "worker/struct.Worker.html#method.nonsense",
        "worker/Worker.html",
    ];
    for place in elsewhere {
        assert!(fault(place).is_some(), "{place}");
    }
}
