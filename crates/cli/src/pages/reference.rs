//! The pages about the command say what the command's own data say.
//!
//! After an intended change, `REVEILLE_SNAPSHOT=write cargo test -p reveille-cli -- pages::` writes them anew.

use std::collections::BTreeSet;

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command, CommandFactory};

use super::generated::{compare_parts, markdown, parts, table, wrapped};
use crate::{Cli, filter};

const PAGES: [&str; 2] = ["docs/reference/command.md", "docs/reference/command-running.md"];

/// The flag that most commands have. The page describes it once.
const JSON: &str = "json";
/// The most values of an argument that the page describes one by one.
const MOST_VALUES: usize = 6;

fn root() -> Command {
    let mut root = Cli::command();
    root.build();
    root
}

/// Returns the subcommands that users see.
fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// Returns a text of clap's as sentences with a full stop.
fn sentence(text: &str) -> String {
    let text = text.trim();
    let end = if text.is_empty() || text.ends_with('.') { "" } else { "." };
    markdown(&format!("{text}{end}"))
}

/// Returns an argument as a user writes it.
fn written(argument: &Arg) -> String {
    let id = argument.get_id().as_str();
    let is_number = default(argument).trim_matches('`').parse::<f64>().is_ok();
    let names = argument.get_value_names().unwrap_or_default().iter();
    // clap's own name for a value repeats the argument's name.
    let name = |name: &str| if is_number && name == id.to_uppercase() { "N".to_owned() } else { name.to_owned() };
    let value = names.map(|value| name(value)).collect::<Vec<_>>().join(" ");
    match argument.get_long() {
        None if argument.is_required_set() => value,
        None => format!("[{value}]"),
        Some(long) if argument.get_action().takes_values() => format!("--{long} {value}"),
        Some(long) => format!("--{long}"),
    }
}

/// Returns what an argument means, with its values and the arguments that it excludes.
fn meaning(command: &Command, argument: &Arg) -> String {
    let mut text = sentence(&help(argument));
    if argument.is_required_set() && argument.get_long().is_some() {
        text += " Required.";
    }
    let takes_values = argument.get_action().takes_values();
    let mut values: Vec<PossibleValue> = if takes_values { argument.get_possible_values() } else { Vec::new() };
    values.retain(|value| !value.is_hide_set());
    let is_short = values.len() <= MOST_VALUES;
    let value = |value: &PossibleValue| match value.get_help().filter(|_| is_short) {
        Some(help) => {
            let help = markdown(&help.to_string());
            format!("`{}` ({})", value.get_name(), first_small(help.trim_end_matches('.')))
        }
        None => format!("`{}`", value.get_name()),
    };
    if !values.is_empty() {
        text += &format!(" One of {}.", values.iter().map(value).collect::<Vec<_>>().join(", "));
    }
    if !is_short && values.iter().any(|value| value.get_help().is_some()) {
        text += &format!(" `reveille {} --help` describes each.", command.get_name());
    }
    let excluded = command.get_arg_conflicts_with(argument).into_iter().filter(|other| other.get_id() != JSON);
    let flag = |argument: &Arg| format!("`{}`", written(argument).split(' ').next().unwrap_or_default());
    let excluded: Vec<String> = excluded.map(flag).collect();
    if !excluded.is_empty() {
        text += &format!(" Not with {}.", excluded.join(", "));
    }
    text.trim().to_owned()
}

fn first_small(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

fn default(argument: &Arg) -> String {
    if !argument.get_action().takes_values() || matches!(argument.get_action(), ArgAction::SetTrue) {
        return String::new();
    }
    let defaults = argument.get_default_values().iter().map(|value| format!("`{}`", value.display()));
    defaults.collect::<Vec<_>>().join(" ")
}

/// Returns the arguments of a command that are not also those of a command above it.
fn own<'a>(command: &'a Command, above: &[&Command]) -> Vec<&'a Arg> {
    let is_same = |one: &Arg, other: &Arg| one.get_id() == other.get_id() && help(one) == help(other);
    let is_own = |argument: &&Arg| {
        !["help", "version", JSON].contains(&argument.get_id().as_str())
            && !argument.is_hide_set()
            && argument.get_help_heading() != Some(filter::HEADING)
            && !above.iter().any(|above| above.get_arguments().any(|other| is_same(argument, other)))
    };
    command.get_arguments().filter(is_own).collect()
}

/// Returns the arguments that choose jobs. The page describes them once.
fn filter_of(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| argument.get_help_heading() == Some(filter::HEADING))
}

fn help(argument: &Arg) -> String {
    argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default()
}

/// Returns what follows a command's name, but for its options.
fn usage(command: &Command, above: &[&Command]) -> String {
    let mut usage = String::new();
    if visible(command).next().is_some() {
        usage += if command.is_subcommand_required_set() { " COMMAND" } else { " [COMMAND]" };
    }
    for argument in command.get_positionals() {
        let more = if matches!(argument.get_action(), ArgAction::Append) { "..." } else { "" };
        usage += &format!(" {}{more}", written(argument));
    }
    let has_json = |command: &Command| command.get_arguments().any(|argument| argument.get_id() == JSON);
    if has_json(command) && !above.iter().any(|above| has_json(above)) {
        usage += " [--json]";
    }
    usage
}

/// Returns the description of a command and of its subcommands.
fn described(command: &Command, above: &[&Command]) -> String {
    let level = "#".repeat(above.len() + 1);
    let name = above.iter().map(|above| above.get_name()).chain([command.get_name()]).collect::<Vec<_>>().join(" ");
    let usage = usage(command, above);
    let mut text = format!("{level} {name}\n\n");
    if !usage.is_empty() {
        text += &format!("`{name}{usage}`\n\n");
    }
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    text += &about.split("\n\n").map(|paragraph| wrapped(&sentence(paragraph)) + "\n").collect::<Vec<_>>().join("\n");
    let own = own(command, above);
    let code = |argument: &Arg| format!("`{}`", written(argument));
    // The line above the description says all of a command without options.
    if own.iter().all(|argument| argument.is_positional()) {
    } else if own.iter().all(|argument| default(argument).is_empty()) {
        let row = |argument: &&Arg| [code(argument), meaning(command, argument)];
        text += &format!("\n{}", table(["argument", "meaning"], own.iter().map(row)));
    } else {
        let row = |argument: &&Arg| [code(argument), default(argument), meaning(command, argument)];
        text += &format!("\n{}", table(["argument", "default", "meaning"], own.iter().map(row)));
    }
    if filter_of(command).next().is_some() {
        text += "\nThis also takes [the options of a filter](#the-filter).\n";
    }
    let above: Vec<&Command> = above.iter().copied().chain([command]).collect();
    for subcommand in visible(command) {
        text += &format!("\n{}", described(subcommand, &above));
    }
    text
}

#[test]
fn the_pages_on_the_command_say_what_the_command_says() {
    let root = root();
    let shared = |argument: &&Arg| !["help", "version"].contains(&argument.get_id().as_str());
    for page in PAGES {
        compare_parts(page, |part| {
            if part == "shared" {
                let row = |argument: &Arg| {
                    let variable = argument.get_env().map(|name| format!("`{}`", name.display())).unwrap_or_default();
                    [format!("`{}`", written(argument)), variable, default(argument), meaning(&root, argument)]
                };
                let rows = root.get_arguments().filter(shared).map(row);
                return table(["option", "variable", "default", "meaning"], rows);
            }
            if part == "filter" {
                let command = root.find_subcommand("jobs").unwrap();
                let row = |argument: &Arg| [format!("`{}`", written(argument)), meaning(command, argument)];
                return table(["option", "meaning"], filter_of(command).map(row));
            }
            let command = root.find_subcommand(part).unwrap_or_else(|| panic!("{page}: no command {part}"));
            described(command, &[&root])
        });
    }
}

#[test]
fn each_command_is_on_one_of_the_pages() {
    let root = root();
    let parts = PAGES.iter().flat_map(|page| parts(page));
    let described: Vec<String> = parts.filter(|part| !["shared", "filter"].contains(&part.as_str())).collect();
    let names: BTreeSet<&str> = visible(&root).map(Command::get_name).collect();
    assert_eq!(described.iter().map(String::as_str).collect::<BTreeSet<_>>(), names);
    assert_eq!(described.len(), names.len(), "no command is on both pages");
}
