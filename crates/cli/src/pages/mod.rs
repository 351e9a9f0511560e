//! The command on the pages: each line of a page is one that the command accepts, and the reference of the command is
//! written from the command's own data.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::CommandFactory;

use crate::Cli;

#[path = "../../../../tests/suite/generated.rs"]
#[allow(clippy::unwrap_used)]
mod generated;
mod reference;
pub mod shell;

/// What a page writes for a text that only the reader's shell knows, such as `$id`. A number is also a text.
pub const UNKNOWN: &str = "7";

fn collect(folder: &Path, found: &mut BTreeMap<String, String>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let page = path.strip_prefix(generated::root()).unwrap().to_str().unwrap().to_owned();
            found.insert(page, fs::read_to_string(&path).unwrap());
        }
    }
}

/// Returns the README and the pages of `docs/`, by their paths from the project's root.
fn pages() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(&generated::root().join("docs"), &mut found);
    found.insert("README.md".into(), fs::read_to_string(generated::root().join("README.md")).unwrap());
    found
}

/// Returns the arguments of this command in a list of words; `None` if the words run another program.
pub fn arguments(words: &[String]) -> Option<&[String]> {
    let words = match words {
        [program, rest @ ..]
            if ["exec", "!", "if", "while", "until", "then", "do", "nohup"].contains(&&program[..]) =>
        {
            rest
        }
        words => words,
    };
    let is_setting = |word: &String| word.split_once('=').is_some_and(|(name, _)| !name.contains(['-', '/', '.']));
    let words = &words[words.iter().take_while(|word| is_setting(word)).count()..];
    match words {
        [program, rest @ ..] if program == "reveille" => Some(rest),
        [cargo, alias, rest @ ..] if cargo == "cargo" && alias == "reveille" => Some(rest),
        [cargo, run, ..] if cargo == "cargo" && run == "run" && words.contains(&"reveille-cli".into()) => {
            words.splitn(2, |word| word == "--").nth(1)
        }
        _ => None,
    }
}

#[test]
fn the_command_accepts_every_line_of_the_pages() {
    let (mut seen, mut refused) = (0, Vec::new());
    for (page, text) in pages() {
        for (first, block) in shell::blocks(&text) {
            let commands = match shell::commands(&block, UNKNOWN) {
                Ok(commands) => commands,
                Err(error) => {
                    refused.push(format!("{page}:{first}: {error}"));
                    continue;
                }
            };
            for (line, words) in commands {
                let Some(arguments) = arguments(&words) else { continue };
                seen += 1;
                let given = std::iter::once("reveille".into()).chain(arguments.iter().cloned());
                // clap returns the answers to `--help` and `--version` as errors, too.
                let error = Cli::command().try_get_matches_from(given).err().filter(clap::Error::use_stderr);
                if let Some(error) = error.map(|error| error.to_string()) {
                    let error = error.lines().next().unwrap_or_default();
                    refused.push(format!("{page}:{}: reveille {}: {error}", first + line, arguments.join(" ")));
                }
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(seen > 20, "{seen} lines were seen");
}

#[test]
fn this_command_is_found_among_others() {
    let found = |text: &str| {
        let commands = shell::commands(text, UNKNOWN).unwrap();
        commands.iter().filter_map(|(_, words)| arguments(words).map(|rest| rest.join(" "))).collect::<Vec<_>>()
    };
    assert_eq!(found("reveille status && psql -f x.sql; reveille resume mail"), ["status", "resume mail"]);
    assert_eq!(found("DATABASE_URL=postgres://h/d reveille top | head # reveille x"), ["top"]);
    assert_eq!(found("cargo run --release -p reveille-cli -- bench drain\ncargo test"), ["bench drain"]);
    assert_eq!(found("if cargo reveille doctor; then echo reveille; fi"), ["doctor"]);
}
