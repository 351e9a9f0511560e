//! Rules that hold for every command.

use clap::Command;

use crate::command_line;

/// The commands without the flag `--json`, and the reason of each.
const WITHOUT_JSON: [(&str, &str); 6] = [
    ("work", "its stdout belongs to the programs that it runs"),
    ("top", "it draws on a terminal"),
    ("dashboard", "it prints a link"),
    ("metrics", "Prometheus reads its format"),
    ("completions", "a shell reads its script"),
    ("man", "it prints pages"),
];

/// Returns the names of all commands that users see, from the name of this one on, and the commands.
pub fn all<'a>(command: &'a Command, name: &str) -> Vec<(String, &'a Command)> {
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    let below = below.flat_map(|command| all(command, &format!("{name} {}", command.get_name())));
    std::iter::once((name.to_owned(), command)).chain(below).collect()
}

#[test]
fn every_command_prints_json_on_demand() {
    let mut root = command_line().disable_help_subcommand(true);
    root.build();
    let mut without = Vec::new();
    for (name, command) in all(&root, "reveille") {
        let has_json = command.get_arguments().any(|argument| argument.get_long() == Some("json"));
        if !command.is_subcommand_required_set() && !has_json {
            without.push(name);
        }
    }
    assert_eq!(without, WITHOUT_JSON.map(|(name, _)| format!("reveille {name}")));
}

#[test]
fn the_page_on_output_has_the_keys_of_every_command() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/command-output.md"));
    let page = page.unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let described: Vec<&str> = rows.flat_map(|names| names.split(", ")).map(|name| name.trim_matches('`')).collect();
    let mut root = command_line().disable_help_subcommand(true);
    root.build();
    for (name, command) in all(&root, "reveille") {
        let name = name.trim_start_matches("reveille").trim_start();
        let is_described = described.contains(&name) || name.starts_with("bench ");
        let has_none = WITHOUT_JSON.iter().any(|(without, _)| *without == name);
        assert!(is_described || has_none || command.is_subcommand_required_set(), "{name}");
    }
}
