//! Examples for the help of each command. A test parses each of them.

use clap::Command;

/// The name of a command, from the program's name on, and one to three lines that a user might type.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "reveille",
        &["reveille migrate && reveille doctor", "reveille enqueue send_welcome '{\"user_id\": 7}'", "reveille top"],
    ),
    ("reveille demo", &["reveille demo", "reveille demo --keep"]),
    ("reveille migrate", &["reveille migrate", "reveille migrate --check", "reveille migrate --print > reveille.sql"]),
    (
        "reveille enqueue",
        &[
            "reveille enqueue send_welcome '{\"user_id\": 7}' --queue mail",
            "reveille enqueue send_report --at '2026-12-24 18:00+01' --after 41,42 --on any",
            "generate | reveille enqueue --from-file -",
        ],
    ),
    ("reveille emit", &["reveille emit paid:7 '{\"cents\": 990}'", "reveille emit the-import-is-done"]),
    (
        "reveille work",
        &[
            "reveille work --exec 'python3 work.py'",
            "reveille work --queue mail=8 --queue default=2 --exec ./work.sh --timeout 30s --http 0.0.0.0:9187",
            "reveille work --queue mail=32 --pipe 'python -m app.worker' --children 4",
        ],
    ),
    (
        "reveille pipe-check",
        &[
            "reveille pipe-check 'python -m app.worker'",
            "reveille pipe-check ./worker --kind send_mail --payload '{\"to\": \"a@example.org\"}'",
        ],
    ),
    ("reveille status", &["reveille status", "reveille status --json"]),
    (
        "reveille jobs",
        &[
            "reveille jobs --queue mail",
            "reveille jobs --state failing --error 'connection refused' --newer-than 2h --json",
            "reveille jobs --kind send_welcome --follow",
        ],
    ),
    ("reveille job", &["reveille job 42", "reveille job 42 --json"]),
    ("reveille workers", &["reveille workers", "reveille workers stop 7"]),
    ("reveille workers list", &["reveille workers list --json"]),
    ("reveille workers stop", &["reveille workers stop 7 8"]),
    ("reveille workers slots", &["reveille workers slots mail=8", "reveille workers slots mail=0 --worker 7"]),
    ("reveille top", &["reveille top", "reveille top --table workers --interval 5s", "reveille top --once"]),
    (
        "reveille dashboard",
        &["reveille dashboard --open", "reveille dashboard --listen 0.0.0.0:7070 --auth basic --host ops.example.com"],
    ),
    ("reveille metrics", &["reveille metrics --listen 0.0.0.0:9187", "reveille metrics --once"]),
    (
        "reveille retry",
        &[
            "reveille retry 42 43",
            "reveille retry --state failing --queue mail",
            "reveille retry --again --state cancelled --key tenant-7 --dry-run",
        ],
    ),
    ("reveille cancel", &["reveille cancel 42 43", "reveille cancel --payload '{\"campaign\": 12}' --dry-run"]),
    (
        "reveille edit",
        &[
            "reveille edit 42 --priority urgent --at now",
            "reveille edit 42 --payload '{\"user_id\": 8}'",
            "reveille edit --queue-is mail --kind newsletter --queue slow --priority low --dry-run",
        ],
    ),
    (
        "reveille dead",
        &[
            "reveille dead --queue mail",
            "reveille dead revive --kind send_welcome",
            "reveille dead purge --reason permanent",
        ],
    ),
    ("reveille dead list", &["reveille dead list --reason timed_out --limit 5"]),
    (
        "reveille dead revive",
        &[
            "reveille dead revive 42",
            "reveille dead revive --queue mail --error 'connection refused' --dry-run",
            "reveille dead revive --all --yes",
        ],
    ),
    ("reveille dead purge", &["reveille dead purge 42", "reveille dead purge --reason permanent --older-than 30days"]),
    (
        "reveille pause",
        &[
            "reveille pause mail",
            "reveille pause --kind send_mail",
            "reveille pause payments --kind charge --key 'card 7'",
        ],
    ),
    ("reveille resume", &["reveille resume mail", "reveille resume --kind send_mail"]),
    ("reveille drain", &["reveille drain mail --timeout 10m", "reveille pause mail && reveille drain mail"]),
    ("reveille queue", &["reveille queue set mail max_running=5 retention=12h", "reveille queue limits"]),
    (
        "reveille queue set",
        &[
            "reveille queue set mail max_running=5 retention=12h",
            "reveille queue set api rate_limit=100 rate_period=1s",
            "reveille queue set mail max_running=default",
        ],
    ),
    ("reveille queue limits", &["reveille queue limits"]),
    ("reveille queue pauses", &["reveille queue pauses"]),
    ("reveille queue remove", &["reveille queue remove mail"]),
    (
        "reveille schedule",
        &[
            "reveille schedule add nightly send_report --cron '0 3 * * *' --time-zone Europe/Berlin",
            "reveille schedule list",
        ],
    ),
    (
        "reveille schedule add",
        &[
            "reveille schedule add nightly send_report --cron '0 3 * * *' --time-zone Europe/Berlin",
            "reveille schedule add heartbeat ping --every 5m --catch-up skip",
        ],
    ),
    ("reveille schedule list", &["reveille schedule list --json"]),
    ("reveille schedule pause", &["reveille schedule pause nightly"]),
    ("reveille schedule resume", &["reveille schedule resume nightly"]),
    ("reveille schedule trigger", &["reveille schedule trigger nightly"]),
    ("reveille schedule remove", &["reveille schedule remove nightly"]),
    (
        "reveille schedule next",
        &[
            "reveille schedule next '0 3 * * *' --time-zone Europe/Berlin",
            "reveille schedule next @monthly --count 12 --after 2026-01-01",
        ],
    ),
    ("reveille workflow", &["reveille workflow list --state stalled", "reveille workflow show 7"]),
    (
        "reveille workflow list",
        &["reveille workflow list --name nightly", "reveille workflow list --state failed --json"],
    ),
    ("reveille workflow show", &["reveille workflow show 7", "reveille workflow show 7 --json"]),
    ("reveille workflow cancel", &["reveille workflow cancel 7 8"]),
    ("reveille workflow retry", &["reveille workflow retry 7", "reveille workflow retry 7 --force"]),
    ("reveille actions", &["reveille actions", "reveille actions stop 12"]),
    ("reveille actions list", &["reveille actions list --limit 200 --json"]),
    ("reveille actions stop", &["reveille actions stop 12"]),
    ("reveille prune", &["reveille prune"]),
    ("reveille doctor", &["reveille doctor", "reveille doctor --ignore settings --patience 30m --json"]),
    ("reveille listen", &["reveille listen", "reveille listen --queue mail --json"]),
    ("reveille bench", &["reveille bench drain", "reveille bench latency --json"]),
    (
        "reveille bench drain",
        &["reveille bench drain --jobs 500000 --processes 2", "reveille bench drain --history off --json"],
    ),
    ("reveille bench latency", &["reveille bench latency --jobs 5000"]),
    ("reveille bench enqueue", &["reveille bench enqueue --mode copy", "reveille bench enqueue --workers busy"]),
    ("reveille bench delayed", &["reveille bench delayed"]),
    ("reveille bench horizon", &["reveille bench horizon"]),
    ("reveille bench backlog", &["reveille bench backlog --waiting 1000000"]),
    ("reveille bench pipe", &["reveille bench pipe", "reveille bench pipe --pipe 'python3 worker.py' --children 2"]),
    ("reveille bench idle", &["reveille bench idle --workers 10"]),
    ("reveille bench schedules", &["reveille bench schedules --schedules 1000"]),
    ("reveille bench steady", &["reveille bench steady --rate 2000 --seconds 30"]),
    ("reveille bench unruly", &["reveille bench unruly --snapshot"]),
    ("reveille bench views", &["reveille bench views --waiting 1000000 --json"]),
    ("reveille bench workflows", &["reveille bench workflows --jobs 1000000 --json"]),
    (
        "reveille torture",
        &[
            "reveille torture --length 10m",
            "reveille torture --only kill,crash --seed 7",
            "reveille torture --queues workflows,steps --length 3m",
        ],
    ),
    (
        "reveille completions",
        &[
            "reveille completions bash > ~/.local/share/bash-completion/completions/reveille",
            "reveille completions zsh > ~/.zfunc/_reveille",
            "reveille completions fish > ~/.config/fish/completions/reveille.fish",
        ],
    ),
    ("reveille man", &["reveille man --dir /usr/local/share/man/man1", "reveille man | man -l -"]),
];

/// Returns the examples of a command.
pub fn of(name: &str) -> &'static [&'static str] {
    EXAMPLES.iter().find(|(command, _)| *command == name).map_or(&[], |(_, lines)| lines)
}

/// Adds the examples to the help of a command and of its subcommands.
pub fn add(command: Command) -> Command {
    let name = command.get_name().to_owned();
    add_to(command, &name)
}

fn add_to(command: Command, name: &str) -> Command {
    let lines = of(name);
    let header = command.get_styles().get_header();
    let text = format!("{header}Examples:{header:#}\n  {}", lines.join("\n  "));
    let command = if lines.is_empty() { command } else { command.after_help(text) };
    command.mut_subcommands(|command| {
        let name = format!("{name} {}", command.get_name());
        add_to(command, &name)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::command_line;
    use crate::conventions::all;
    use crate::pages::{UNKNOWN, arguments, shell};

    #[test]
    fn the_help_of_each_command_has_up_to_three_examples() {
        let all: BTreeSet<String> = all(&command_line(), "reveille").into_iter().map(|(name, _)| name).collect();
        let with_examples = EXAMPLES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(all, with_examples);
        assert!(EXAMPLES.iter().all(|(_, lines)| (1..=3).contains(&lines.len())));
        let mut command = command_line();
        let help = command.find_subcommand_mut("cancel").unwrap().render_help().to_string();
        assert!(help.contains("\n\nExamples:\n  reveille cancel 42 43\n  reveille cancel "), "{help}");
    }

    #[test]
    fn the_command_accepts_its_examples() {
        for (name, line) in EXAMPLES.iter().flat_map(|(name, lines)| lines.iter().map(move |line| (name, line))) {
            let commands = shell::commands(line, UNKNOWN).unwrap();
            let own: Vec<_> = commands.iter().filter_map(|(_, words)| arguments(words)).collect();
            let is_named = |words: &&[String]| format!("reveille {}", words.join(" ")).starts_with(name);
            assert!(own.iter().any(is_named), "{line} is no example of {name}");
            for words in own {
                let words = std::iter::once("reveille").chain(words.iter().map(String::as_str));
                let parsed = command_line().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
    }
}
