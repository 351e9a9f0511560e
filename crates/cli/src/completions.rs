//! `completions`: scripts by which a shell completes the command's names and options.

use clap::{Args, Command, CommandFactory, ValueHint};
use clap_complete::Shell;

use crate::{Cli, Outcome, output};

#[derive(Args)]
pub struct CompletionsCommand {
    /// The shell that reads the script.
    shell: Shell,
}

impl CompletionsCommand {
    pub fn run(self) -> Outcome {
        Ok(output::page(script(self.shell).trim_end())?)
    }
}

fn script(shell: Shell) -> String {
    // clap_complete panics if it cannot write, so it writes into memory.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut without_files(visible()), "reveille", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Returns the command without the subcommands that users do not see.
pub fn visible() -> Command {
    let all = Cli::command();
    let visible = Command::new("reveille")
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .subcommand_required(true)
        .args(all.get_arguments().cloned());
    visible.subcommands(all.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}

/// Keeps shells from offering files as the values of options and arguments, such as the names of queues.
fn without_files(command: Command) -> Command {
    let command = command.mut_args(|argument| match argument.get_value_hint() {
        ValueHint::Unknown if argument.get_action().takes_values() => argument.value_hint(ValueHint::Other),
        _ => argument,
    });
    command.mut_subcommands(without_files)
}
