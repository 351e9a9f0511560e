use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use reveille::job::RetryPolicy;
use reveille::worker::{SlotLimits, Worker, WorkerBuilder};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::connection::{Connection, duration};
use crate::encryption::{EncryptionOptions, RefuseEncrypted};
use crate::exec::Program;
use crate::init::{self, Init};
use crate::passed_variables::PassedVariables;
use crate::pipe::{Pipe, PipeOptions};
use crate::strays::Strays;
use crate::watchdog::Watchdog;
use crate::{Failure, Outcome, metrics};

const DEFAULT_SLOTS: usize = 4;
const MOST_SLOTS: usize = 10_000;

#[derive(Args)]
pub struct WorkCommand {
    /// A queue to work, and its number of slots, like mail=8. A slot runs one job at a time; a queue has 1 to 10000
    /// slots, or 4 without a number. May be repeated. Default: default=4.
    #[arg(long = "queue", value_name = "QUEUE[=SLOTS]")]
    queues: Vec<String>,
    /// The shell command that works a job. The command gets the payload on stdin, and REVEILLE_JOB_ID and more in the
    /// environment. Exit status 0: done, 75: try again later, 65: dead, anything else: failed. The end of its stderr is
    /// kept as the error.
    #[arg(long, value_name = "COMMAND", required_unless_present = "pipe", conflicts_with = "pipe")]
    exec: Option<String>,
    /// The shell command of a child: a process that works many jobs, by the pipe protocol on its stdin and stdout.
    #[arg(long, value_name = "COMMAND")]
    pipe: Option<String>,
    /// The number of children of --pipe. They share the slots of each queue evenly.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    children: u16,
    /// Keep the command's stdout as the job's result: as JSON if it is valid JSON, else as text. At most 1 MiB.
    #[arg(long, conflicts_with = "pipe")]
    keep_output: bool,
    /// Pass DATABASE_URL, REVEILLE_LISTEN_URL and the PG* variables on to the command. By default, the command does not
    /// learn the database's address and password.
    #[arg(long)]
    pass_database: bool,
    /// Pass one of these variables on to the command, like DATABASE_URL. May be repeated. PG* stands for all that begin
    /// with PG.
    #[arg(long = "pass-env", value_name = "NAME")]
    pass_env: Vec<String>,
    /// The time that a job waits after exit status 75, like 30s.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    later: Duration,
    /// The time that one attempt may take if the job has no timeout, like 30s.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// The poll interval: the time after which the worker looks for jobs although no bell has rung.
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "DURATION")]
    poll_interval: Duration,
    /// The grace period: the time that running jobs may take to finish at shutdown. A second Ctrl-C or SIGTERM ends
    /// this period.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    grace: Duration,
    /// Run the worker as a child process, pass signals on to it and reap orphans, as process 1 of a container must.
    #[arg(long, value_enum, default_value_t = Init::Auto, overrides_with = "init", value_name = "WHEN")]
    init: Init,
    /// Serve pages for probes and scrapes at this address: /healthz, /readyz and /metrics. /readyz answers with status
    /// 200 while the worker claims jobs and the database answers.
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
    /// Do not listen for notifications: find new jobs only by polling, as behind a transaction pooler.
    #[arg(long)]
    no_listen: bool,
    /// Wait for children a shorter time, by this factor: for tests.
    #[arg(long, hide = true, default_value_t = 1)]
    haste: u32,
    #[command(flatten)]
    encryption: EncryptionOptions,
}

impl WorkCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        if self.init.is_wanted() {
            return init::run().await;
        }
        let encryption = self.encryption.encryption()?;
        let strays = Arc::new(Strays::new(Watchdog::start()?));
        let mut signals = Signals::new()?;
        let (first, second) = (CancellationToken::new(), CancellationToken::new());
        let (stop, end_grace) = (first.clone(), second.clone().cancelled_owned());
        tokio::spawn(async move {
            signals.next().await;
            first.cancel();
            signals.next().await;
            second.cancel();
        });
        let database = connection.database().await?;
        let mut worker = Worker::builder(database.clone())
            .poll_interval(self.poll_interval)
            .grace(self.grace)
            .listen(!self.no_listen)
            .end_grace(end_grace);
        if let Some(timeout) = self.timeout {
            worker = worker.timeout(timeout);
        }
        worker = match &encryption {
            Some(encryption) => worker.middleware(Arc::clone(encryption)),
            None => worker.middleware(RefuseEncrypted),
        };
        let queues = self.queues()?;
        for (name, slots) in &queues {
            worker = worker.queue(name, *slots);
        }
        let passed = PassedVariables { all: self.pass_database, names: self.pass_env.clone() };
        match (&self.exec, &self.pipe) {
            (_, Some(command)) => {
                let (command, children) = (command.clone(), self.children.into());
                let (grace, haste) = (self.grace, self.haste);
                let options =
                    PipeOptions { command, children, queues, passed, strays, database, encryption, grace, haste };
                self.run_pipe(connection, worker, options, stop).await
            }
            (exec, None) => {
                let (command, later) = (exec.clone().unwrap_or_default(), self.later);
                let program = Program { command, later, keeps_output: self.keep_output, passed, strays };
                let program = Arc::new(program);
                let handler = move |context| Arc::clone(&program).run(context);
                let worker = worker.handle_any(handler, RetryPolicy::default()).build()?;
                self.serve_pages(connection, &worker).await?;
                Ok(worker.run_until(stop.cancelled()).await?)
            }
        }
    }

    /// Works jobs with children, once one of them is ready.
    async fn run_pipe(
        &self,
        connection: &Connection,
        worker: WorkerBuilder,
        options: PipeOptions,
        stop: CancellationToken,
    ) -> Outcome {
        let limits = SlotLimits::default();
        let pipe = Pipe::new(options, limits.clone());
        let handler = Arc::clone(&pipe);
        let handler = move |context| Arc::clone(&handler).run(context);
        let mut worker = worker.slot_limits(limits).handle_any(handler, RetryPolicy::default()).build()?;
        self.serve_pages(connection, &worker).await?;
        let children = pipe.start();
        let worked = match stop.run_until_cancelled(pipe.ready()).await {
            None => Ok(()),
            Some(Err(failure)) => Err(failure),
            Some(Ok(kinds)) => {
                if let Some(kinds) = kinds {
                    worker.declare_kinds(kinds);
                }
                let stopping = async {
                    stop.cancelled().await;
                    pipe.stop();
                };
                worker.run_until(stopping).await.map_err(Failure::from)
            }
        };
        pipe.shut_down(children).await;
        worked
    }

    /// Returns the queues with their slots.
    fn queues(&self) -> Result<Vec<(String, usize)>, Failure> {
        if self.queues.is_empty() {
            return Ok(vec![("default".to_owned(), DEFAULT_SLOTS)]);
        }
        self.queues.iter().map(|queue| queue_and_slots(queue).map(|(name, slots)| (name.to_owned(), slots))).collect()
    }

    async fn serve_pages(&self, connection: &Connection, worker: &Worker) -> Outcome {
        if let Some(address) = &self.http {
            let pages = metrics::pages(connection).health(&worker.health());
            let listener = metrics::listen(address).await?;
            say!("serving http://{}/healthz, /readyz and /metrics", listener.local_addr()?);
            tokio::spawn(pages.serve(listener));
        }
        Ok(())
    }
}

/// Reads `mail=8`: the number of slots follows the last `=`. A name without a number has 4 slots.
fn queue_and_slots(text: &str) -> Result<(&str, usize), Failure> {
    let Some((name, slots)) = text.rsplit_once('=') else { return Ok((text, DEFAULT_SLOTS)) };
    match slots.parse() {
        // `parse` would accept a plus sign.
        Ok(number @ 1..=MOST_SLOTS) if !slots.starts_with('+') => Ok((name, number)),
        _ => Err(format!("queue {text:?}: the number of slots after the last = must be 1 to {MOST_SLOTS}").into()),
    }
}

/// The signals that stop the worker: Ctrl-C, and the signal TERM that supervisors send.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for Ctrl-C or the signal TERM.
pub async fn stop_signal() {
    match Signals::new() {
        Ok(mut signals) => signals.next().await,
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_number_of_slots_follows_the_last_equals_sign() {
        let split = |text| queue_and_slots(text).ok();
        assert_eq!(split("mail=8"), Some(("mail", 8)));
        assert_eq!(split("a=b=2"), Some(("a=b", 2)));
        assert_eq!(split("mail"), Some(("mail", 4)));
        for bad in ["a=b", "mail=8x", "mail=", "mail=+8", "mail=0", "mail=10001", "mail=99999999999999999999"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_name_can_be_given_slots(name in ".*", slots in 1usize..=10_000) {
            let text = format!("{name}={slots}");
            prop_assert_eq!(queue_and_slots(&text).ok(), Some((name.as_str(), slots)));
        }

        #[test]
        fn a_name_without_slots_is_itself(name in "[^=]*") {
            prop_assert_eq!(queue_and_slots(&name).ok(), Some((name.as_str(), 4)));
        }
    }
}
