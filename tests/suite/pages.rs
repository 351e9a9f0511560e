//! The pages: each link leads somewhere, and each page stands in the book and in the library's documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::generated::root;
use crate::items;
use crate::links::{Link, anchors, links};

/// The folders of `docs/` that make up the guide.
const GUIDE: [&str; 8] = ["start", "jobs", "clients", "features", "running", "reference", "coming-from", "beyond"];

/// The folders without pages of this project.
const NOT_OURS: [&str; 4] = ["target", "node_modules", ".git", ".venv"];

/// The largest size in bytes of a page of the guide.
const LARGEST_GUIDE_PAGE: usize = 8_000;
/// The largest sizes in bytes of other pages.
const LARGEST: [(&str, usize); 4] =
    [("README.md", 9_000), ("ARCHITECTURE.md", 8_000), ("CONTRIBUTING.md", 12_000), ("SECURITY.md", 6_000)];
/// The guide's pages that may be larger. They are lists that the program writes: a reader searches them for one name,
/// and a second page would only hide half of the names.
const MAY_BE_LARGER: [&str; 5] = [
    "docs/reference/command.md",
    "docs/reference/command-running.md",
    "docs/reference/functions.md",
    "docs/reference/tables.md",
    "docs/reference/views.md",
];

fn collect(folder: &Path, found: &mut BTreeMap<String, String>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !NOT_OURS.contains(&name) {
                collect(&path, found);
            }
        } else if name.ends_with(".md") {
            let page = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.insert(page, fs::read_to_string(&path).unwrap());
        }
    }
}

/// Returns the project's pages, by their paths from the project's root.
pub fn pages() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(&root(), &mut found);
    assert!(found.len() > 100, "{}", found.len());
    found
}

/// Returns the name of a page of the guide, which is its path without `docs/` and `.md`.
pub fn guide_name(page: &str) -> Option<&str> {
    let name = page.strip_prefix("docs/")?.strip_suffix(".md")?;
    GUIDE.contains(&name.split('/').next()?).then_some(name)
}

/// Returns the path of a link's target from the project's root.
fn resolved(page: &str, target: &str) -> PathBuf {
    let mut path = Path::new(page).parent().unwrap().to_owned();
    for part in Path::new(target) {
        match part.to_str().unwrap() {
            ".." => assert!(path.pop(), "{page}: {target} leaves the project"),
            "." => {}
            part => path.push(part),
        }
    }
    path
}

/// Returns why a link's target does not exist; `None` if it exists, or is a page of another site.
fn fault(page: &str, target: &str, pages: &BTreeMap<String, String>) -> Option<String> {
    if let Some(item) = target.strip_prefix("https://docs.rs/reveille/latest/reveille/") {
        return items::fault(item);
    }
    if target.starts_with("https://") || target.starts_with("http://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if path.is_empty() { PathBuf::from(page) } else { resolved(page, path) };
    if !root().join(&file).exists() {
        return Some(format!("no file {}", file.display()));
    }
    let text = pages.get(file.to_str().unwrap());
    let has_anchor = anchor.is_empty() || text.is_some_and(|text| anchors(text).iter().any(|known| known == anchor));
    (!has_anchor).then(|| format!("{} has no heading #{anchor}", file.display()))
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let pages = pages();
    let (mut seen, mut dead) = (0, Vec::new());
    // The labels of this file are items of the library, which rustdoc checks.
    for (page, text) in pages.iter().filter(|(page, _)| *page != "src/guide/links.md") {
        for Link { line, target, .. } in links(text) {
            let Some(target) = target else { continue };
            seen += 1;
            dead.extend(fault(page, &target, &pages).map(|fault| format!("{page}:{line}: {target}: {fault}")));
        }
    }
    assert!(dead.is_empty(), "{} dead links: {dead:#?}", dead.len());
    assert!(seen > 200, "{seen} links were seen");
}

#[test]
fn every_label_of_a_link_is_defined_once_and_used() {
    let mut faults = Vec::new();
    for (page, text) in pages() {
        let links = links(&text);
        let defined: Vec<&Link> = links.iter().filter(|link| link.is_definition()).collect();
        let is_defined = |label: &str| defined.iter().filter(|link| link.label.as_deref() == Some(label)).count();
        let used: Vec<&Link> = links.iter().filter(|link| link.target.is_none()).collect();
        for Link { line, label, is_shortcut, .. } in &used {
            let label = label.as_deref().unwrap();
            // Text in brackets is a link only if its label is defined. A label like the path of a page is meant as one.
            let is_meant = !is_shortcut || label.contains('/') && !label.contains(' ');
            if is_meant && is_defined(label) == 0 {
                faults.push(format!("{page}:{line}: [{label}] is not defined"));
            }
        }
        for Link { line, label, .. } in &defined {
            let label = label.as_deref().unwrap();
            if is_defined(label) > 1 {
                faults.push(format!("{page}:{line}: [{label}] is defined twice"));
            }
            // Rustdoc includes this file before each page, which uses some of the labels.
            if page != "src/guide/links.md" && !used.iter().any(|link| link.label.as_deref() == Some(label)) {
                faults.push(format!("{page}:{line}: no link uses [{label}]"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_link_to_a_guide_page_is_labelled_with_its_name() {
    let mut wrong = Vec::new();
    for (page, text) in pages().iter().filter(|(page, _)| guide_name(page).is_some() || *page == "docs/README.md") {
        for Link { line, label, target, .. } in links(text) {
            let Some(target) = target.filter(|target| !target.contains("://") && !target.starts_with('#')) else {
                continue;
            };
            let path = resolved(page, target.split('#').next().unwrap());
            let path = path.to_str().unwrap();
            match guide_name(path) {
                Some(name) if label.as_deref() == Some(name) => {}
                Some(name) => wrong.push(format!("{page}:{line}: write [text][{name}], with [{name}]: {target}")),
                // The library's documentation has no other pages. The guide's first page is also read as a file.
                None if page == "docs/README.md" => {}
                None => wrong.push(format!("{page}:{line}: write `{path}` instead of a link, for rustdoc lacks it")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_book_lists_each_page_once_by_its_title() {
    let pages = pages();
    let mut listed = BTreeSet::new();
    for Link { line, target, text, .. } in links(&pages["docs/SUMMARY.md"]) {
        let page = format!("docs/{}", target.unwrap());
        let title = pages[&page].lines().next().unwrap_or_default().to_owned();
        assert!(listed.insert(page.clone()), "docs/SUMMARY.md:{line}: {page} is listed twice");
        assert!(title.starts_with("# "), "{page} begins with {title:?}, and not with a title");
        if guide_name(&page).is_some() {
            assert_eq!(title, format!("# {text}"), "{page} begins with its title in docs/SUMMARY.md");
        }
    }
    let written = pages.keys().filter(|page| page.starts_with("docs/") && *page != "docs/SUMMARY.md");
    assert_eq!(listed, written.cloned().collect(), "docs/SUMMARY.md lists each page of docs/");
}

#[test]
fn each_guide_page_has_one_title() {
    for (page, text) in pages().iter().filter(|(page, _)| guide_name(page).is_some()) {
        let titles = crate::links::headings(text).into_iter().filter(|(level, _)| *level == 1).count();
        assert_eq!(titles, 1, "{page}");
    }
}

#[test]
fn the_librarys_documentation_has_each_guide_page() {
    let pages = pages();
    let names: BTreeSet<&str> = pages.keys().filter_map(|page| guide_name(page)).collect();
    let source = fs::read_to_string(root().join("src/guide.rs")).unwrap();
    let mut included = BTreeSet::new();
    let mut room = "";
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("pub mod ").and_then(|line| line.strip_suffix(" {")) {
            room = name;
        } else if let Some((module, file)) = line.trim().strip_prefix("page!(").and_then(|line| line.split_once(", ")) {
            let name = file.trim_matches(|c| "\");".contains(c)).strip_suffix(".md").unwrap();
            assert_eq!(format!("{room}/{module}"), name.replace('-', "_"), "the module of {name} in src/guide.rs");
            included.insert(name);
        }
    }
    assert_eq!(included, names, "src/guide.rs includes each page");
    let definitions = |page: &str| -> BTreeMap<String, String> {
        let defined = links(&pages[page]).into_iter().filter(Link::is_definition);
        defined.map(|link| (link.label.unwrap(), link.target.unwrap_or_default())).collect()
    };
    let items = |name: &&str| format!("crate::guide::{}", name.replace('/', "::").replace('-', "_"));
    let expected: BTreeMap<String, String> = names.iter().map(|name| (name.to_string(), items(name))).collect();
    assert_eq!(definitions("src/guide/links.md"), expected, "src/guide/links.md");
    let expected: BTreeMap<String, String> =
        names.iter().map(|name| (name.to_string(), format!("{name}.md"))).collect();
    assert_eq!(definitions("docs/README.md"), expected, "docs/README.md");
}

#[test]
fn no_page_outgrows_its_bound() {
    let pages = pages();
    let bounds = pages.keys().filter(|page| guide_name(page).is_some() && !MAY_BE_LARGER.contains(&page.as_str()));
    let bounds = bounds.map(|page| (page.as_str(), LARGEST_GUIDE_PAGE)).chain(LARGEST);
    let size = |page: &str| pages.get(page).map_or(0, String::len);
    let large = bounds.filter(|(page, bound)| size(page) >= *bound);
    let large: Vec<_> = large.map(|(page, bound)| format!("{page}: {} of {bound} bytes", size(page))).collect();
    assert!(large.is_empty(), "{large:#?}");
}
