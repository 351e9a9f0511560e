//! Help, completions and manual pages.

use std::process::Command;

use crate::cli::{command, run};
use crate::exec::Folder;

#[test]
fn help_and_version_go_to_stdout() {
    for (argument, part) in [("--help", "Usage: reveille"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let ended = run(command(&[argument]), "");
        assert_eq!((ended.code, ended.out.contains(part)), (0, true), "{}", ended.out);
    }
    let mut helped = command(&["status", "--help"]);
    helped.env("DATABASE_URL", "postgres://u:secret@h/db");
    assert!(!run(helped, "").out.contains("secret"));
}

#[test]
fn a_command_without_its_subcommand_prints_its_help_and_fails() {
    for (arguments, part) in [
        (&[][..], "Usage: reveille [OPTIONS] <COMMAND>"),
        (&["queue"], "Usage: reveille queue [OPTIONS] <COMMAND>"),
        (&["schedule", "--schema", "x"], "Usage: reveille schedule [OPTIONS] <COMMAND>"),
        (&["bench"], "Usage: reveille bench [OPTIONS] <COMMAND>"),
    ] {
        for url in [None, Some(("DATABASE_URL", "postgres://u:secret@h/db"))] {
            let mut alone = command(arguments);
            alone.envs(url);
            let alone = run(alone, "");
            assert_eq!((alone.code, &*alone.out), (2, ""), "{arguments:?}");
            assert!(alone.err.contains(part) && alone.err.contains("\nExamples:\n  reveille "), "{}", alone.err);
            assert!(!alone.err.contains("secret") && !alone.err.contains("error"), "{}", alone.err);
        }
    }
}

#[test]
fn bash_accepts_the_completions_and_completes() {
    let folder = Folder::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(command(&["completions", shell]), "");
        assert_eq!((script.code, &*script.err), (0, ""), "{shell}");
        assert!(script.out.contains("revive") && !script.out.contains("torture-worker"), "{shell}");
        std::fs::write(folder.0.join(shell), script.out).unwrap();
    }
    let bash = |script: &str| {
        let output = Command::new("bash").args(["--norc", "-c", script, "bash", &folder.path("bash")]).output();
        let output = output.expect("bash is missing: install it, since a test reads its completions");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(bash("bash -n \"$1\""), (true, String::new(), String::new()));
    for (line, expected) in [
        ("reveille dea", "dead\n"),
        ("reveille dead re", "revive\n"),
        ("reveille dead revive --re", "--reason\n"),
        ("reveille dead revive --reason ti", "timed_out\n"),
    ] {
        // Does what bash does at a press of the key Tab.
        let complete = format!(
            "source \"$1\"; compopt() {{ :; }}; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
            _reveille reveille \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        assert_eq!(bash(&complete), (true, expected.to_owned(), String::new()), "{line}");
    }
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let folder = Folder::new();
    let printed = run(command(&["man", "--dir", &folder.path("man1")]), "");
    assert_eq!((printed.code, &*printed.err), (0, ""));
    for file in printed.out.lines() {
        let page = std::fs::read_to_string(file).unwrap();
        let name = file.rsplit('/').next().unwrap().trim_end_matches(".1");
        assert!(page.contains(&format!(".TH {name} 1 ")), "{name}: {page}");
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS", ".SH EXAMPLES"] {
            assert!(page.contains(section), "{name} has no {section}");
        }
    }
    for name in ["reveille", "reveille-dead", "reveille-dead-revive", "reveille-man"] {
        assert!(printed.out.contains(&format!("/{name}.1\n")), "{}", printed.out);
    }
    assert!(!printed.out.contains("torture-worker"), "{}", printed.out);
    let main = run(command(&["man"]), "").out;
    assert_eq!(main, std::fs::read_to_string(folder.path("man1/reveille.1")).unwrap());
    assert!(main.contains("DATABASE_URL") && main.contains(".SH \"EXIT STATUS\""), "{main}");
    run(command(&["man", "--dir", "/dev/null/man1"]), "").refused(&["/dev/null/man1"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_no_panic() {
    for arguments in [&["completions", "zsh"][..], &["man"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut printing = command(arguments);
        let output = crate::cli::finish(printing.stdout(full).spawn().unwrap());
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.starts_with("error: No space left") && err.lines().count() == 1, "{err}");
    }
}
