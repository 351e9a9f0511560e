use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use reveille::{Worker, job::RetryPolicy};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::connection::{Connection, duration};
use crate::exec::{Program, Strays};
use crate::init::{self, Init};
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
    #[arg(long, value_name = "COMMAND")]
    exec: String,
    /// Keep the command's stdout as the job's result: as JSON if it is valid JSON, else as text. At most 1 MiB.
    #[arg(long)]
    keep_output: bool,
    /// Pass DATABASE_URL, REVEILLE_LISTEN_URL and the PG* variables on to the command. By default, the command does not
    /// learn the database's address and password.
    #[arg(long)]
    pass_database: bool,
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
}

impl WorkCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        if self.init.is_wanted() {
            return init::run().await;
        }
        let (keeps_output, strays) = (self.keep_output, Arc::new(Strays::new(Watchdog::start()?)));
        let (command, later, passes_database) = (self.exec, self.later, self.pass_database);
        let program = Program { command, later, keeps_output, passes_database, strays };
        let program = Arc::new(program);
        let mut signals = Signals::new()?;
        let (first, second) = (CancellationToken::new(), CancellationToken::new());
        let (stop, end_grace) = (first.clone().cancelled_owned(), second.clone().cancelled_owned());
        tokio::spawn(async move {
            signals.next().await;
            first.cancel();
            signals.next().await;
            second.cancel();
        });
        let mut worker = Worker::builder(connection.database().await?)
            .poll_interval(self.poll_interval)
            .grace(self.grace)
            .listen(!self.no_listen)
            .end_grace(end_grace)
            .handle_any(move |context| Arc::clone(&program).run(context), RetryPolicy::default());
        if let Some(timeout) = self.timeout {
            worker = worker.timeout(timeout);
        }
        if self.queues.is_empty() {
            worker = worker.queue("default", DEFAULT_SLOTS);
        }
        for queue in &self.queues {
            let (name, slots) = queue_and_slots(queue)?;
            worker = worker.queue(name, slots);
        }
        let worker = worker.build()?;
        if let Some(address) = &self.http {
            let pages = metrics::pages(connection).health(&worker.health());
            let listener = metrics::listen(address).await?;
            say!("serving http://{}/healthz, /readyz and /metrics", listener.local_addr()?);
            tokio::spawn(pages.serve(listener));
        }
        worker.run_until(stop).await?;
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
