//! Workers of jobs that do nothing, in this process or in other processes.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use reveille::job::RetryPolicy;
use reveille::worker::SlotLimits;
use reveille::{Database, Job, Worker};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::stage::{BenchStage, KIND, QUEUE};
use crate::connection::Connection;
use crate::exec::Program;
use crate::passed_variables::PassedVariables;
use crate::pipe::{Pipe, PipeOptions};
use crate::strays::Strays;
use crate::watchdog::Watchdog;
use crate::{Failure, Outcome, program};

/// A poll interval that is longer than any bench.
pub const NEVER: Duration = Duration::from_secs(3600);

#[derive(Serialize, Deserialize)]
struct Nothing(());

impl Job for Nothing {
    const KIND: &'static str = KIND;
}

async fn nothing(_: Nothing) {}

/// Workers on the queue, until they are stopped.
pub enum NoOpWorkers {
    Here(JoinHandle<reveille::Result<()>>, CancellationToken),
    Processes(Vec<Child>),
}

impl NoOpWorkers {
    /// Starts one worker in this process.
    pub fn here(database: &Database, slots: usize, poll_interval: Duration) -> Result<NoOpWorkers, Failure> {
        let worker = no_op(database.clone(), slots, poll_interval)?;
        let stop = CancellationToken::new();
        Ok(NoOpWorkers::Here(tokio::spawn(worker.run_until(stop.clone().cancelled_owned())), stop))
    }

    /// Starts workers in separate processes. Returns once all of them can claim jobs.
    pub async fn processes(
        stage: &BenchStage,
        count: usize,
        slots: usize,
        poll_interval: Duration,
    ) -> Result<NoOpWorkers, Failure> {
        NoOpWorkers::processes_with(stage, count, slots, poll_interval, &[]).await
    }

    /// Starts workers in separate processes, with further arguments of [`BenchWorker`].
    pub async fn processes_with(
        stage: &BenchStage,
        count: usize,
        slots: usize,
        poll_interval: Duration,
        arguments: &[String],
    ) -> Result<NoOpWorkers, Failure> {
        let mut children = Vec::new();
        for _ in 0..count {
            let mut command = Command::from(program::again()?);
            command.arg("bench-worker").args(["--database", &stage.name]).args(["--slots", &slots.to_string()]);
            command.arg("--poll-interval").arg(format!("{}ms", poll_interval.as_millis())).args(arguments);
            if let Some(url) = &stage.url {
                command.env("DATABASE_URL", url);
            }
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
            let mut ready = String::new();
            if let Some(stdout) = child.stdout.take() {
                BufReader::new(stdout).read_line(&mut ready).await?;
            }
            if ready.trim() != "ready" {
                return Err(Failure::Error("bench: a worker process did not start".into()));
            }
            children.push(child);
        }
        Ok(NoOpWorkers::Processes(children))
    }

    /// Returns the ids of the worker processes; none if the worker is in this process.
    pub fn pids(&self) -> Vec<u32> {
        match self {
            NoOpWorkers::Here(..) => Vec::new(),
            NoOpWorkers::Processes(children) => children.iter().filter_map(Child::id).collect(),
        }
    }

    /// Kills one of the worker processes.
    pub async fn kill_one(&mut self) -> Outcome {
        if let NoOpWorkers::Processes(children) = self
            && let Some(mut child) = children.pop()
        {
            child.kill().await?;
        }
        Ok(())
    }

    /// Shuts the workers down, and waits for their end.
    pub async fn stop(self) -> Outcome {
        match self {
            NoOpWorkers::Here(working, stop) => {
                stop.cancel();
                working.await.map_err(|error| error.to_string())??;
            }
            NoOpWorkers::Processes(mut children) => {
                children.iter_mut().for_each(|child| drop(child.stdin.take()));
                for mut child in children {
                    child.wait().await?;
                }
            }
        }
        Ok(())
    }
}

fn no_op(database: Database, slots: usize, poll_interval: Duration) -> Result<Worker, Failure> {
    Ok(Worker::builder(database).queue(QUEUE, slots).poll_interval(poll_interval).handle(nothing).build()?)
}

/// Runs a worker process of a bench.
#[derive(Args)]
pub struct BenchWorker {
    #[arg(long)]
    database: String,
    #[arg(long)]
    slots: usize,
    #[arg(long, value_parser = crate::connection::duration)]
    poll_interval: Duration,
    /// The command of the children that work the jobs.
    #[arg(long)]
    pipe: Option<String>,
    #[arg(long, default_value_t = 1)]
    children: usize,
    /// The command that works each job.
    #[arg(long)]
    exec: Option<String>,
}

impl BenchWorker {
    /// Works until the standard input of this process ends.
    pub async fn run(self, connection: &Connection) -> Outcome {
        let url = connection.url().map(str::to_owned);
        let database = Database::options(url).database(&self.database).connect().await?;
        let parent_is_gone = async {
            let mut end = Vec::new();
            let _ = tokio::io::stdin().read_to_end(&mut end).await;
        };
        let builder = || Worker::builder(database.clone()).queue(QUEUE, self.slots).poll_interval(self.poll_interval);
        if let Some(command) = self.pipe {
            let (limits, strays) = (SlotLimits::default(), Arc::new(Strays::new(Watchdog::start()?)));
            let (queues, passed) =
                (vec![(QUEUE.to_owned(), self.slots)], PassedVariables { all: false, names: vec![] });
            let (children, database, grace) = (self.children, database.clone(), Duration::from_secs(30));
            let options =
                PipeOptions { command, children, queues, passed, strays, database, encryption: None, grace, haste: 1 };
            let pipe = Pipe::new(options, limits.clone());
            let processes = pipe.start();
            pipe.ready().await?;
            crate::output::line("ready")?;
            let handler = Arc::clone(&pipe);
            let handler = move |context| Arc::clone(&handler).run(context);
            let worker = builder().slot_limits(limits).handle_any(handler, RetryPolicy::default()).build()?;
            worker.run_until(parent_is_gone).await?;
            pipe.shut_down(processes).await;
        } else if let Some(command) = self.exec {
            let (strays, passed) =
                (Arc::new(Strays::new(Watchdog::start()?)), PassedVariables { all: false, names: vec![] });
            let program = Program { command, later: NEVER, keeps_output: false, passed, strays };
            let program = Arc::new(program);
            crate::output::line("ready")?;
            let handler = move |context| Arc::clone(&program).run(context);
            let worker = builder().handle_any(handler, RetryPolicy::default()).build()?;
            worker.run_until(parent_is_gone).await?;
        } else {
            let worker = no_op(database, self.slots, self.poll_interval)?;
            crate::output::line("ready")?;
            worker.run_until(parent_is_gone).await?;
        }
        // Exits at once, because the read of the standard input blocks a thread until the parent ends.
        std::process::exit(0);
    }
}
