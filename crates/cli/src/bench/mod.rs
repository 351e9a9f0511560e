//! `reveille bench`: measures speed on this machine. Each figure has a baseline from the same run.

mod backlog;
mod cpu;
mod delayed;
mod drain;
mod enqueue;
mod horizon;
mod idle;
mod latency;
mod pipe;
mod raw;
mod schedules;
mod stage;
mod steady;
mod unruly;
mod views;
mod watch;
mod workers;
mod workflows;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use cpu::Machine;

use crate::connection::Connection;
use crate::figures::{percentile, rounded};
use crate::progress::Progress;
use crate::{Outcome, output};

pub use workers::BenchWorker;

/// The results of a bench: figures by name.
type BenchFigures = Map<String, Value>;

/// Measures on a throw-away Postgres with its default settings (fsync on). With --database-url, measures in a new
/// database there, and drops the new database afterwards.
#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
    /// Measure although this build is not optimized. Its figures mean nothing.
    #[arg(long, global = true)]
    unoptimized: bool,
}

#[derive(Subcommand)]
enum What {
    /// Jobs worked per second. The baselines are a raw loop of the same claims and deletes, and a loop that claims one
    /// row at a time.
    Drain(drain::DrainBench),
    /// Time from just before the enqueue to the start of the handler, on an idle queue. The baseline is a bare INSERT
    /// with NOTIFY that a listener receives and claims.
    Latency(latency::LatencyBench),
    /// Jobs enqueued per second. The baseline is the same inserts without the trigger.
    Enqueue(enqueue::EnqueueBench),
    /// Time from the due time of delayed jobs to their start. The next poll is an hour away.
    Delayed(delayed::DelayedBench),
    /// Throughput while a transaction stays open: before and after many rows died that this transaction may see.
    Horizon(horizon::HorizonBench),
    /// Duration of a claim in a full table. The baseline is a claim in an almost empty table.
    Backlog(backlog::BacklogBench),
    /// Jobs worked per second by children of `work --pipe`. The baselines are `work --exec`, and handlers in the
    /// worker's own process.
    Pipe(pipe::PipeBench),
    /// The cost of workers without jobs.
    Idle(idle::IdleBench),
    /// Lateness of jobs of many schedules. All schedules have a tick each second, and one worker is killed.
    Schedules(schedules::SchedulesBench),
    /// Lateness and cost of jobs that are enqueued at a fixed rate, even if the worker cannot keep up.
    Steady(steady::SteadyBench),
    /// Lateness of jobs whose transactions stay open, come in bursts or roll savepoints back. The next poll is an hour
    /// away.
    Unruly(unruly::UnrulyBench),
    /// Response times of the views on full tables. The baselines are `select 1` and counting to a million.
    Views(views::ViewsBench),
    /// Jobs worked per second in a batch, and workflows per second. The baseline is as many jobs without a workflow.
    Workflows(workflows::WorkflowsBench),
}

impl Bench {
    pub async fn run(self, connection: &Connection) -> Outcome {
        crate::check_optimized("bench", self.unoptimized)?;
        let stage = stage::BenchStage::set(connection, Progress::start("measuring", self.json)).await?;
        let before = Machine::so_far();
        let figures = match self.what {
            What::Drain(command) => command.measure(&stage).await,
            What::Latency(command) => command.measure(&stage).await,
            What::Enqueue(command) => command.measure(&stage).await,
            What::Delayed(command) => command.measure(&stage).await,
            What::Horizon(command) => command.measure(&stage).await,
            What::Backlog(command) => command.measure(&stage).await,
            What::Pipe(command) => command.measure(&stage).await,
            What::Idle(command) => command.measure(&stage).await,
            What::Schedules(command) => command.measure(&stage).await,
            What::Steady(command) => command.measure(&stage).await,
            What::Unruly(command) => command.measure(&stage).await,
            What::Views(command) => command.measure(&stage).await,
            What::Workflows(command) => command.measure(&stage).await,
        };
        let stolen = Machine::so_far().zip(before).map(|(now, before)| now.stolen_percent_since(&before));
        stage.clear().await?;
        let mut figures = figures?;
        figures.extend(stolen.map(|percent| ("stolen_cpu_percent".to_owned(), rounded(percent))));
        print(&figures, self.json)?;
        Ok(())
    }
}

fn print(figures: &BenchFigures, json: bool) -> std::io::Result<()> {
    if json {
        return output::line(Value::Object(figures.clone()));
    }
    let width = figures.keys().map(String::len).max().unwrap_or(0);
    // Figures that are lists were already printed while the bench ran.
    for (name, value) in figures.iter().filter(|(_, value)| !value.is_array()) {
        let shown = match value.as_f64() {
            Some(number) if number.fract() != 0.0 || number.abs() >= 1e15 => format!("{number:>12.3}"),
            Some(number) => format!("{number:>8}"),
            None => format!("{:>8}", value.as_str().unwrap_or_default()),
        };
        output::line(format!("{name:width$}  {shown}"))?;
    }
    Ok(())
}

/// Adds p50, p95, p99 and max to the figures, in milliseconds.
fn percentiles(figures: &mut BenchFigures, prefix: &str, mut milliseconds: Vec<f64>) {
    milliseconds.sort_by(f64::total_cmp);
    for (name, percent) in [("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99), ("max_ms", 100)] {
        figures.insert(format!("{prefix}{name}"), rounded(percentile(&milliseconds, percent)));
    }
}
