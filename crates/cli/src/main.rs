//! The command `reveille`.
//!
//! Data goes to stdout, everything else to stderr. Exit status: 0 done, 1 not found or not healthy, 2 error.
#![forbid(unsafe_code)]

#[macro_use]
mod output;

mod actions;
mod bench;
mod bulk;
mod completions;
mod connection;
#[cfg(test)]
mod conventions;
mod csv;
mod dashboard;
mod dead;
mod demo;
mod doctor;
mod drain;
mod edit;
mod emit;
mod encryption;
mod enqueue;
mod enqueue_file;
mod examples;
mod exec;
mod figures;
mod filter;
mod follow;
mod init;
mod jobs;
mod keeper;
mod listen;
mod log;
mod man;
mod metrics;
mod migrate;
mod operator;
#[cfg(test)]
mod pages;
mod passed_variables;
mod pipe;
mod pipe_check;
mod processes;
mod program;
mod program_output;
mod progress;
mod queue;
mod schedule;
mod status;
mod strays;
mod times;
mod top;
mod torture;
mod watchdog;
mod work;
mod workers;
mod workflow;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use connection::Connection;

/// A job queue that lives in Postgres and wakes its workers.
#[derive(Parser)]
#[command(name = "reveille", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show everything on a throw-away Postgres: enqueue jobs, work them, sum up.
    ///
    /// The demo ignores DATABASE_URL and the PG* variables. To run it on your own database, give --database-url.
    Demo(demo::DemoCommand),
    /// Create Reveille's tables, or bring them up to date.
    Migrate(migrate::MigrateCommand),
    /// Enqueue a job, or many jobs from a file.
    Enqueue(enqueue::EnqueueCommand),
    /// Emit an event: the jobs that wait for it go on, and so do jobs that wait for it later.
    ///
    /// The first event of a name counts, and is kept for 30 days. A later one changes nothing.
    Emit(emit::EmitCommand),
    /// Work jobs with a program in any language.
    Work(work::WorkCommand),
    /// Try a child of `reveille work --pipe`: play the worker, and check that the child keeps the protocol.
    ///
    /// The command needs no database. Exit with 1 if the child fails a check.
    PipeCheck(pipe_check::PipeCheckCommand),
    /// Show the queues.
    Status(status::StatusCommand),
    /// List jobs, or follow them as they come and change.
    Jobs(jobs::JobsCommand),
    /// Show one job.
    Job(jobs::JobCommand),
    /// List the workers, or stop some.
    Workers(workers::WorkersCommand),
    /// Watch queues, workers and jobs live, and change them.
    Top(top::Top),
    /// Serve pages for a browser: queues, jobs, workers, and buttons to change them.
    ///
    /// At an address of this machine alone, the printed link has a token, so that other users of the machine cannot
    /// open the pages. Any other address needs --auth.
    Dashboard(dashboard::DashboardCommand),
    /// Serve metrics to Prometheus.
    Metrics(metrics::MetricsCommand),
    /// Make waiting jobs due now, or revive dead jobs; with --again, run finished jobs once more.
    ///
    /// Without a state, a filter chooses the delayed jobs that pass it; with --again, the finished ones. More than
    /// 1,000 jobs are changed in several transactions. Ctrl-C ends this between two of them.
    Retry(jobs::RetryCommand),
    /// Cancel waiting jobs, and ask the handlers of running jobs to stop.
    ///
    /// More than 1,000 jobs are cancelled in several transactions. Ctrl-C ends this between two of them.
    Cancel(jobs::CancelCommand),
    /// Change waiting jobs: their queue, priority, due time, payload and more.
    ///
    /// A running job is not changed. A dead job can be changed by its id before it is revived.
    ///
    /// Here --queue, --key and --payload are new values, so three conditions of the filter have other names:
    /// --queue-is, --key-is and --payload-has.
    ///
    /// More than 1,000 jobs are changed in several transactions. Ctrl-C ends this between two of them.
    Edit(edit::EditCommand),
    /// List, revive or purge dead jobs.
    Dead(dead::DeadCommand),
    /// Pause a queue, a kind or a key: start no more of their jobs.
    ///
    /// The pause lasts until it is resumed. Running jobs go on. `reveille queue pauses` lists the pauses.
    Pause(queue::PauseCommand),
    /// End a pause of a queue, a kind or a key: name what was paused.
    Resume(queue::ResumeCommand),
    /// Wait until no job of a queue is ready or running; exit with 1 if the time is up earlier.
    ///
    /// This also waits for jobs that are enqueued meanwhile, but not for delayed jobs, such as jobs that wait for a
    /// retry. If the queue is paused, this waits only for running jobs.
    Drain(drain::DrainCommand),
    /// Change settings of queues, list their limits, or remove an unused queue.
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Add, list, pause, resume, trigger or remove schedules of recurring jobs, or show the ticks of a cron text.
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// List, show, cancel or retry workflows: sets of jobs that wait for each other.
    #[command(subcommand)]
    Workflow(workflow::WorkflowCommand),
    /// List who did what by the command, the dashboard or a program, or stop a change of many jobs.
    ///
    /// Each change by this command is recorded on behalf of the user of the operating system, with its host, and kept
    /// for 90 days. Payloads are not recorded, only their hashes.
    Actions(actions::ActionsCommand),
    /// Do all the upkeep of workers now, except vacuum.
    Prune(queue::PruneCommand),
    /// Check the server, the schema and the workers, and print what to fix; exit with 1 if anything is bad.
    Doctor(doctor::DoctorCommand),
    /// Print each bell as it rings, and the other notifications to workers.
    Listen(listen::ListenCommand),
    /// Measure speed on this machine, and compare it with baselines.
    Bench(bench::Bench),
    #[command(hide = true)]
    BenchWorker(bench::BenchWorker),
    /// Break everything at random while jobs are worked, and count lost and repeated jobs.
    Torture(torture::Torture),
    /// Print a script by which a shell completes commands and options.
    ///
    /// The shell reads the script from a folder of its own, as in the examples. zsh needs the folder in its fpath.
    Completions(completions::CompletionsCommand),
    /// Print the manual page, or write a page for each command.
    Man(man::ManCommand),
    #[command(hide = true)]
    TortureWorker(torture::TortureWorker),
    #[command(hide = true)]
    Watchdog,
    #[command(hide = true)]
    PipeChild,
    #[command(hide = true)]
    Keep(keeper::KeepCommand),
}

/// The failure of a command.
enum Failure {
    /// Something is not found or not healthy. The command has printed the reason. Exit status 1.
    NotFound,
    /// An error, with a message of one line. Exit status 2.
    Error(String),
    /// The reader of the output, such as `head`, has closed the pipe. This is no error. Exit status 0.
    OutputClosed,
}

/// Refuses to run a command in a build that is not optimized. With `--unoptimized`, this allows it.
fn check_optimized(command: &str, unoptimized: bool) -> Outcome {
    if cfg!(debug_assertions) && !unoptimized {
        return Err(Failure::Error(format!(
            "this build is not optimized; run `cargo run --release -p reveille-cli -- {command}`, or add --unoptimized"
        )));
    }
    Ok(())
}

impl From<reveille::Error> for Failure {
    fn from(error: reveille::Error) -> Failure {
        Failure::Error(error.to_string())
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        let message = error.as_db_error().map(|error| error.message().to_owned());
        Failure::Error(message.unwrap_or_else(|| error.to_string()))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Error(error.to_string()),
        }
    }
}

impl From<String> for Failure {
    fn from(error: String) -> Failure {
        Failure::Error(error)
    }
}

type Outcome = Result<(), Failure>;

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.command {
        Command::Keep(keeper) => return keeper.run(),
        Command::PipeChild => return pipe::no_op_child::run(),
        _ => {}
    }
    let failed = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(error.into()),
    };
    match failed {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::NotFound) => ExitCode::from(1),
        Err(Failure::Error(error)) => {
            say!("error: {}", one_line(&error));
            ExitCode::from(2)
        }
    }
}

/// Returns the command's options and subcommands, with examples in their help.
fn command_line() -> clap::Command {
    examples::add(Cli::command())
}

fn parse() -> Result<Cli, clap::Error> {
    let matches = command_line().try_get_matches()?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    // clap puts a global argument among the subcommand's matches, even if it stood before the subcommand.
    let source = matches.subcommand().and_then(|(_, command)| command.value_source("database_url"));
    cli.connection.url_is_argument = source == Some(ValueSource::CommandLine);
    Ok(cli)
}

async fn run(cli: Cli) -> Outcome {
    let connection = &cli.connection;
    log_to_stderr(&cli.command);
    match cli.command {
        Command::Demo(command) => command.run(connection).await,
        Command::Migrate(command) => command.run(connection).await,
        Command::Enqueue(command) => command.run(connection).await,
        Command::Emit(command) => command.run(connection).await,
        Command::Work(command) => command.run(connection).await,
        Command::PipeCheck(command) => command.run().await,
        Command::Status(command) => command.run(connection).await,
        Command::Jobs(command) => command.run(connection).await,
        Command::Job(command) => command.run(connection).await,
        Command::Workers(command) => command.run(connection).await,
        Command::Top(command) => command.run(connection).await,
        Command::Dashboard(command) => command.run(connection).await,
        Command::Metrics(command) => command.run(connection).await,
        Command::Retry(command) => command.run(connection).await,
        Command::Cancel(command) => command.run(connection).await,
        Command::Edit(command) => command.run(connection).await,
        Command::Dead(command) => command.run(connection).await,
        Command::Pause(command) => command.run(connection).await,
        Command::Resume(command) => command.run(connection).await,
        Command::Drain(command) => command.run(connection).await,
        Command::Queue(command) => command.run(connection).await,
        Command::Schedule(command) => command.run(connection).await,
        Command::Workflow(command) => command.run(connection).await,
        Command::Actions(command) => command.run(connection).await,
        Command::Prune(command) => command.run(connection).await,
        Command::Doctor(command) => command.run(connection).await,
        Command::Listen(command) => command.run(connection).await,
        Command::Bench(command) => command.run(connection).await,
        Command::BenchWorker(command) => command.run(connection).await,
        Command::Torture(command) => command.run().await,
        Command::TortureWorker(command) => command.run(connection).await,
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::Watchdog => watchdog::run(),
        // `main` runs these without a runtime.
        Command::Keep(_) | Command::PipeChild => Ok(()),
    }
}

/// Writes the log to stderr: from level info for a worker, else from level warn. `RUST_LOG` overrides the level.
fn log_to_stderr(command: &Command) {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::field::MakeExt;
    use tracing_subscriber::fmt::format;
    let default = match command {
        Command::Work(_) => "info,deadpool_postgres=error",
        // These commands draw on the terminal, or measure times, so they write no log.
        Command::Demo(_)
        | Command::Top(_)
        | Command::Bench(_)
        | Command::BenchWorker(_)
        | Command::Torture(_)
        | Command::TortureWorker(_) => "off",
        _ => "warn,deadpool_postgres=error",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none_or(|no_color| no_color.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| log::Patient(std::io::stderr()))
        .log_internal_errors(false)
        .with_ansi(ansi)
        .with_target(false)
        .fmt_fields(format::debug_fn(output::field).delimited(" "))
        .init();
}

/// Prints help as clap does. Prints an error about an argument on one line.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if let Some(help) = help_instead_of(error) {
        help.lines().for_each(|line| say!("{line}"));
        return ExitCode::from(2);
    }
    let text = error.render().to_string();
    let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let usage = rest.lines().find_map(|line| line.strip_prefix("Usage: "));
    let usage = usage.map(|usage| format!("; usage: {usage}")).unwrap_or_default();
    say!("{}{usage} (see --help)", one_line(what));
    ExitCode::from(2)
}

/// Returns the help of a command that lacks its subcommand; `None` for another error.
///
/// The help goes to stderr and the exit status is 2, as for every error of usage: a script whose variable is empty must
/// not go on as if a command had run. `git` alone fails for the same reason.
fn help_instead_of(error: &clap::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Some(error.render().to_string()),
        // clap returns this if an option was given, be it by the environment.
        ErrorKind::MissingSubcommand => {
            let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else { return None };
            let mut root = command_line();
            root.build();
            let below = |command, name| clap::Command::find_subcommand_mut(command, name);
            Some(name.split(' ').skip(1).try_fold(&mut root, below)?.render_help().to_string())
        }
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
