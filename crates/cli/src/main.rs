//! The command `reveille`.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 the asked-for thing was not found or is not
//! healthy, 2 error.
#![forbid(unsafe_code)]

#[macro_use]
mod output;

mod bench;
mod connection;
mod dead;
mod demo;
mod doctor;
mod drain;
mod enqueue;
mod exec;
mod figures;
mod init;
mod jobs;
mod keeper;
mod listen;
mod log;
mod metrics;
mod migrate;
mod processes;
mod program;
mod queue;
mod said;
mod schedule;
mod status;
mod top;
mod torture;
mod watchdog;
mod work;
mod workers;

use std::process::ExitCode;

use clap::error::ErrorKind;
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
    /// Show the whole thing on a throw-away Postgres: enqueue, work, live progress, a summary.
    ///
    /// What DATABASE_URL and the PG* variables say is left alone: to see it work on a database of yours, give
    /// --database-url.
    Demo(demo::Demo),
    /// Create Reveille's tables or bring them up to date.
    Migrate(migrate::Migrate),
    /// Enqueue a job.
    Enqueue(enqueue::Enqueue),
    /// Work jobs with a program in any language.
    Work(work::Work),
    /// Show the queues.
    Status(status::Status),
    /// List jobs.
    Jobs(jobs::Jobs),
    /// Show one job.
    Job(jobs::JobById),
    /// List the workers, or stop one.
    Workers(workers::Workers),
    /// Watch queues, workers and jobs live, and put them right.
    Top(top::Top),
    /// Serve metrics to Prometheus.
    Metrics(metrics::Metrics),
    /// Make jobs due now: waiting ones, or dead ones, which are revived; with --again, run finished ones once more.
    Retry(jobs::Retry),
    /// Cancel jobs; the handler of one that runs is told.
    Cancel(jobs::Cancel),
    /// List, revive or purge dead jobs.
    Dead(dead::Dead),
    /// Start no more jobs of a queue.
    Pause(queue::Pause),
    /// Start jobs of a queue again.
    Resume(queue::Resume),
    /// Wait until a queue has nothing ready or running; exit with 1 if the time is over before.
    ///
    /// What is enqueued meanwhile is waited for, too; what is delayed, retries among them, is not. Of a paused queue
    /// only what runs is waited for.
    Drain(drain::Drain),
    /// Settings of queues.
    #[command(subcommand)]
    Queue(queue::Queue),
    /// Jobs that recur: add, list, pause, resume, trigger or remove schedules, or see when one is due.
    #[command(subcommand)]
    Schedule(schedule::Schedule),
    /// Do the upkeep that workers do each minute.
    Prune(queue::Prune),
    /// Check the server, the schema and the workers, and say what to mend; exit with 1 if anything is bad.
    Doctor(doctor::Doctor),
    /// Print each bell as it rings, and what else workers are told.
    Listen(listen::Listen),
    /// Measure speed on this machine, beside baselines.
    Bench(bench::Bench),
    #[command(hide = true)]
    BenchWorker(bench::BenchWorker),
    /// Break everything at random while jobs are worked, and count what came of it.
    Torture(torture::Torture),
    #[command(hide = true)]
    TortureWorker(torture::TortureWorker),
    #[command(hide = true)]
    Watchdog,
    #[command(hide = true)]
    Keep(keeper::Keeper),
}

/// How a command ends that did not succeed.
enum Failure {
    /// The asked-for thing was not found, or is not healthy; what there is to say has been said.
    NotFound,
    /// One line for a person.
    Error(String),
}

/// Refuses what needs an optimized build, unless it is asked for all the same.
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
        let told = error.as_db_error().map(|told| told.message().to_owned());
        Failure::Error(told.unwrap_or_else(|| error.to_string()))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        // Whoever read our output has had enough.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        Failure::Error(error.to_string())
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
    if let Command::Keep(keeper) = cli.command {
        return keeper.run();
    }
    let failed = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(error.into()),
    };
    match failed {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::NotFound) => ExitCode::from(1),
        Err(Failure::Error(error)) => {
            say!("error: {}", one_line(&error));
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches()?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    // Of a global argument the command's own matches have what was said last.
    let source = matches.subcommand().and_then(|(_, command)| command.value_source("database_url"));
    cli.connection.url_is_on_line = source == Some(ValueSource::CommandLine);
    Ok(cli)
}

async fn run(cli: Cli) -> Outcome {
    let connection = &cli.connection;
    log_to_stderr(&cli.command);
    match cli.command {
        Command::Demo(command) => command.run(connection).await,
        Command::Migrate(command) => command.run(connection).await,
        Command::Enqueue(command) => command.run(connection).await,
        Command::Work(command) => command.run(connection).await,
        Command::Status(command) => command.run(connection).await,
        Command::Jobs(command) => command.run(connection).await,
        Command::Job(command) => command.run(connection).await,
        Command::Workers(command) => command.run(connection).await,
        Command::Top(command) => command.run(connection).await,
        Command::Metrics(command) => command.run(connection).await,
        Command::Retry(command) => command.run(connection).await,
        Command::Cancel(command) => command.run(connection).await,
        Command::Dead(command) => command.run(connection).await,
        Command::Pause(command) => command.run(connection).await,
        Command::Resume(command) => command.run(connection).await,
        Command::Drain(command) => command.run(connection).await,
        Command::Queue(command) => command.run(connection).await,
        Command::Schedule(command) => command.run(connection).await,
        Command::Prune(command) => command.run(connection).await,
        Command::Doctor(command) => command.run(connection).await,
        Command::Listen(command) => command.run(connection).await,
        Command::Bench(command) => command.run(connection).await,
        Command::BenchWorker(command) => command.run(connection).await,
        Command::Torture(command) => command.run().await,
        Command::TortureWorker(command) => command.run(connection).await,
        Command::Watchdog => watchdog::run(),
        // `main` has run it.
        Command::Keep(_) => Ok(()),
    }
}

/// Only a worker has something to tell on its way; `RUST_LOG` says otherwise.
fn log_to_stderr(command: &Command) {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::field::MakeExt;
    use tracing_subscriber::fmt::format;
    let default = match command {
        Command::Work(_) => "info,deadpool_postgres=error",
        // These have the terminal to themselves.
        Command::Demo(_)
        | Command::Top(_)
        | Command::Bench(_)
        | Command::BenchWorker(_)
        | Command::Torture(_)
        | Command::TortureWorker(_) => "off",
        _ => "warn,deadpool_postgres=error",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| log::Patient(std::io::stderr()))
        .log_internal_errors(false)
        .with_ansi(ansi)
        .with_target(false)
        .fmt_fields(format::debug_fn(output::field).delimited(" "))
        .init();
}

/// Help as clap prints it; anything else in one line.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let usage = rest.lines().find_map(|line| line.strip_prefix("Usage: "));
    let usage = usage.map(|usage| format!("; usage: {usage}")).unwrap_or_default();
    say!("{}{usage} (see --help)", one_line(what));
    ExitCode::from(2)
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
