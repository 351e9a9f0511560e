//! Inflicts the faults of the schedule on workers, networks and the server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reveille::dev::{Network, Server, Stop};
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::{Client, NoTls};

use super::fleet::{Fleet, Start};
use super::hostile::{self, Known};
use super::schedule::{Fault, Kind};
use super::{journal, lock, odd};
use crate::Failure;
use crate::progress::Progress;

/// The offsets by which clocks are shifted.
const CLOCKS: [&str; 4] = ["-3d", "+3d", "-1h", "+40s"];

pub struct Torturer {
    pub server: Arc<Mutex<Server>>,
    pub url: String,
    pub fleet: Arc<Fleet>,
    /// The number of faults of each kind that were inflicted.
    pub done: Mutex<BTreeMap<String, u64>>,
    /// The time at which the server was back after each crash.
    pub back: Mutex<Vec<Duration>>,
    pub progress: Progress,
    /// True if workers work the queue `plain`, the only queue that gets odd rows.
    pub works_plain: bool,
}

impl Torturer {
    /// Inflicts the faults at their times, concurrently if they overlap. Returns when all faults are over.
    pub async fn run(self: Arc<Self>, faults: Vec<Fault>) -> Result<(), Failure> {
        let began = Instant::now();
        let mut under_way = tokio::task::JoinSet::new();
        let all = faults.len();
        for (begun, fault) in faults.into_iter().enumerate() {
            self.progress.note(format_args!("{begun} of {all} faults"));
            tokio::time::sleep(fault.at.saturating_sub(began.elapsed())).await;
            self.fleet.replace_ended().await?;
            let torturer = Arc::clone(&self);
            under_way.spawn(async move {
                let name = fault.kind.name();
                // A fault may find nothing to break: a server that is down has no session to terminate.
                match torturer.inflict(&fault).await {
                    Ok(true) => *lock(&torturer.done).entry(name).or_default() += 1,
                    Ok(false) => tracing::debug!(name, "there was nothing to break"),
                    Err(error) => tracing::debug!(name, error, "a fault failed"),
                }
            });
        }
        while under_way.join_next().await.is_some() {}
        self.fleet.pass_all();
        Ok(())
    }

    /// Inflicts one fault, and returns when the fault is over. Returns true if there was something to break.
    async fn inflict(&self, fault: &Fault) -> Result<bool, String> {
        let (place, lasts) = (fault.place, fault.lasts);
        let network = |network| async move {
            self.fleet.network(place, network, lasts).await;
            Ok(true)
        };
        match fault.kind {
            Kind::Kill => self.replace(place, lasts, Start::Usual).await,
            Kind::ShiftClock => {
                self.replace(place, lasts, Start::Clock(CLOCKS[fault.dice as usize % CLOCKS.len()])).await?;
                Ok(super::fleet::clock_shifter().is_some())
            }
            Kind::CloseLog => self.replace(place, Duration::ZERO, Start::LogReadFor(lasts)).await,
            Kind::Freeze | Kind::FreezeLong => {
                self.fleet.freeze(place, lasts).await;
                Ok(true)
            }
            Kind::CutListeners => self.terminate("reveille listener").await,
            Kind::CutPools => self.terminate("reveille worker").await,
            Kind::CutHeartbeats => self.terminate("reveille heartbeat").await,
            Kind::CutProducers => self.terminate("reveille").await,
            Kind::NetDelay => network(Network::Delay(Duration::from_millis(5 + fault.dice % 400))).await,
            Kind::NetRefuse => network(Network::Refuse).await,
            Kind::NetHalfClose => network(Network::HalfClose).await,
            Kind::NetBlackHole => network(Network::BlackHole).await,
            Kind::NetSwallowAnswers => network(Network::SwallowAnswers).await,
            Kind::Crash => self.crash().await,
            Kind::Stall => self.stall(lasts).await,
            Kind::Snapshot => self.hold_snapshot(lasts).await,
            Kind::Exhaust => self.exhaust(lasts).await,
            Kind::HostileNotifications | Kind::HostileLocks | Kind::HostileOperators => {
                self.be_hostile(fault.kind, lasts).await.map(|()| true)
            }
            Kind::LockRows => odd::lock_running(&self.client().await?, lasts).await.map_err(described),
            Kind::OddRow if !self.works_plain => Ok(false),
            Kind::OddRow => odd::insert(&self.client().await?, fault.dice).await.map_err(described),
        }
    }

    async fn be_hostile(&self, kind: Kind, lasts: Duration) -> Result<(), String> {
        let client = self.client().await?;
        let known = Known::look(&client).await.map_err(described)?;
        let done = match kind {
            Kind::HostileNotifications => hostile::notify(&client, &known, lasts).await,
            Kind::HostileLocks => hostile::lock(&client, &known, lasts).await,
            _ => hostile::set_traps(&client, lasts).await,
        };
        done.map_err(described)
    }

    async fn replace(&self, place: usize, after: Duration, start: Start) -> Result<bool, String> {
        let replaced = self.fleet.replace(place, after, start).await;
        replaced.map(|()| true).map_err(|_| "cannot start a worker".into())
    }

    async fn client(&self) -> Result<Client, String> {
        let mut config: tokio_postgres::Config = self.url.parse().map_err(described)?;
        config.application_name("torture").connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(NoTls).await.map_err(described)?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn terminate(&self, name: &str) -> Result<bool, String> {
        let sql = "select count(pg_terminate_backend(pid)) > 0 from pg_stat_activity where application_name = $1";
        Ok(self.client().await?.query_one(sql, &[&name]).await.map_err(described)?.get(0))
    }

    async fn crash(&self) -> Result<bool, String> {
        let server = Arc::clone(&self.server);
        let restarted = tokio::task::spawn_blocking(move || lock(&server).restart(Stop::Immediate)).await;
        restarted.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        lock(&self.back).push(journal::now());
        Ok(true)
    }

    /// Stops all processes of the server: the postmaster and its children. Holds the server's lock, so that the fault
    /// `crash` cannot restart the stopped server.
    async fn stall(&self, lasts: Duration) -> Result<bool, String> {
        let server = Arc::clone(&self.server);
        let stalled = tokio::task::spawn_blocking(move || {
            let server = lock(&server);
            let file = std::fs::read_to_string(server.data_dir().join("postmaster.pid")).unwrap_or_default();
            let Some(postmaster) = file.lines().next().and_then(|line| line.parse().ok()).and_then(Pid::from_raw)
            else {
                return false;
            };
            let signal_all = |signal| {
                let children = children_of(postmaster);
                for pid in children.into_iter().chain([postmaster]) {
                    // Ignores an error, because a child may have ended since its id was read.
                    let _ = kill_process(pid, signal);
                }
            };
            signal_all(Signal::STOP);
            std::thread::sleep(lasts);
            signal_all(Signal::CONT);
            true
        });
        stalled.await.map_err(|error| error.to_string())
    }

    async fn hold_snapshot(&self, lasts: Duration) -> Result<bool, String> {
        let client = self.client().await?;
        let hold = "begin isolation level repeatable read; select count(*) from reveille.jobs";
        client.batch_execute(hold).await.map_err(described)?;
        tokio::time::sleep(lasts).await;
        Ok(true)
    }

    async fn exhaust(&self, lasts: Duration) -> Result<bool, String> {
        let until = Instant::now() + lasts;
        let (mut clients, mut refused) = (Vec::new(), false);
        while Instant::now() < until {
            match self.client().await {
                Ok(client) => clients.push(client),
                Err(_) => {
                    refused = true;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        Ok(refused)
    }
}

fn described(error: tokio_postgres::Error) -> String {
    error.to_string()
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let path = format!("/proc/{0}/task/{0}/children", parent.as_raw_nonzero());
    let children = std::fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
