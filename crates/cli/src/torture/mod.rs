//! `reveille torture`: inflicts faults at random while jobs are worked, and checks that no job was lost or repeated.

mod faults;
mod fleet;
mod hostile;
mod journal;
mod limits;
mod linked;
mod odd;
mod producers;
mod queues;
mod report;
mod schedule;
mod worker;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use reveille::Database;
use reveille::dev::Server;
use serde_json::Value;

use crate::progress::Progress;
use crate::{Failure, Outcome, output};
use faults::Torturer;
use fleet::{Fleet, Life};
use limits::MostReserved;
use linked::Acts;
use producers::Produced;
use queues::TestQueue;
use report::TortureFigures;
use schedule::{Fault, Kind};
pub use worker::TortureWorker;

/// Inflicts faults at random on workers, connections, the network and the server of a throw-away Postgres while jobs
/// are worked. Exits with 1 if a job was lost or took effect twice, a worker gave up, a limit was broken, an attack
/// succeeded, or a workflow, a step or an event went wrong.
#[derive(Args)]
pub struct Torture {
    /// The time for which to inflict faults.
    #[arg(long, default_value = "10m", value_parser = crate::connection::duration, value_name = "DURATION")]
    length: Duration,
    /// The seed of the schedule of faults. Each run prints its seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these kinds of fault, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULT")]
    only: Vec<Kind>,
    /// Number of faults of each kind, instead of the usual number.
    #[arg(long, value_name = "N")]
    each: Option<u32>,
    /// The queues on which to enqueue jobs, separated by commas; all queues by default.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "QUEUE")]
    queues: Vec<TestQueue>,
    /// Jobs enqueued a second.
    #[arg(long, default_value_t = 250.0)]
    rate: f64,
    /// Worker processes.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    workers: u16,
    /// Slots of each worker, for each queue.
    #[arg(long, default_value_t = 16)]
    slots: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Run although this build is not optimized and works too few jobs for a thorough test.
    #[arg(long)]
    unoptimized: bool,
}

const PRODUCERS: u32 = 4;
/// The largest number of connections to the server: small, so that the fault `exhaust` can take all of them.
const MAX_CONNECTIONS: &str = "120";
/// The time that the last jobs may take after the last fault. The last fault may have frozen a worker for 40 s.
const LAST_JOBS: Duration = Duration::from_secs(180);
/// The number of times that the dead jobs that hold up others are revived at the end. A revived job may die again.
const REPAIRS: u32 = 10;

impl Torture {
    pub async fn run(self) -> Outcome {
        crate::check_optimized("torture", self.unoptimized)?;
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..) >> 32);
        let kinds = if self.only.is_empty() { Kind::value_variants() } else { &self.only };
        let queues = if self.queues.is_empty() { TestQueue::value_variants() } else { &self.queues };
        let faults = schedule::schedule(seed, self.length, kinds, self.each, self.workers.into());
        say!("{} faults within {:?}; --seed {seed} repeats them", faults.len(), self.length);
        if kinds.contains(&Kind::ShiftClock) && fleet::clock_shifter().is_none() {
            say!("no clock will be shifted: libfaketime is not installed");
        }

        let progress = Progress::start("torture", self.json);
        let folder = Folder::new()?;
        let server = Server::options().setting("max_connections", MAX_CONNECTIONS).start()?;
        let url = server.url("postgres");
        let (database, fleet) = self.set_up(&server, queues, folder.0.clone()).await?;
        let torturer = Arc::new(Torturer {
            server: Arc::new(Mutex::new(server)),
            url,
            fleet: Arc::new(fleet),
            done: Mutex::default(),
            back: Mutex::default(),
            progress,
            works_plain: queues.contains(&TestQueue::Plain),
        });
        let began = Instant::now();
        let most_reserved = Arc::new(MostReserved::default());
        let watching = tokio::spawn(Arc::clone(&most_reserved).watch(database.clone()));
        let mut figures = TortureFigures::new();
        let acts = Arc::new(Acts::default());
        let produced = self.torment(&torturer, faults, queues, &database, &acts, &mut figures).await?;
        watching.abort();

        let torturer = Arc::into_inner(torturer).ok_or_else(|| "a fault is still under way".to_owned())?;
        let fleet = Arc::into_inner(torturer.fleet).ok_or_else(|| "a fault is still under way".to_owned())?;
        let lives = fleet.end().await?;
        let done = torturer.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let back = torturer.back.into_inner().unwrap_or_else(PoisonError::into_inner);

        figures.insert("seed".into(), Value::from(seed));
        figures.insert("seconds".into(), Value::from(began.elapsed().as_secs()));
        figures.insert("faults".into(), Value::from(done.values().sum::<u64>()));
        let evidence = Evidence { produced, lives, back, most_reserved, acts };
        evidence.report(&mut figures, (queues, kinds), &database).await?;
        figures.extend(done.into_iter().map(|(kind, count)| (format!("faults_{kind}"), Value::from(count))));
        print(&figures, self.json)?;
        let unsound = report::unsound(&figures, has_linked(queues));
        if unsound.is_empty() {
            return Ok(());
        }
        say!("these figures must be 0: {}", unsound.join(", "));
        Err(Failure::NotFound)
    }

    /// Creates the tables and the queues, and starts the workers.
    async fn set_up(
        &self,
        server: &Server,
        queues: &[TestQueue],
        folder: PathBuf,
    ) -> Result<(Database, Fleet), Failure> {
        let url = server.url("postgres");
        let database = Database::options(Some(url.clone())).max_connections(16).connect().await?;
        database.migrate().await?;
        let client = database.client().await?;
        for sql in [worker::LEDGER, hostile::SET_UP, odd::SET_UP, linked::SET_UP] {
            client.batch_execute(sql).await?;
        }
        drop(client);
        for queue in queues {
            queue.set_up(&database).await?;
        }
        let names: Vec<&str> = queues.iter().map(|queue| queue.name()).collect();
        let arguments = ["--slots", &self.slots.to_string(), "--queues", &names.join(",")].map(str::to_owned);
        let workers = self.workers.into();
        let fleet = Fleet::start(server.port(), login(&url)?, workers, arguments.to_vec(), folder).await?;
        Ok((database, fleet))
    }

    /// Enqueues jobs and inflicts the faults, waits until all jobs are worked, and returns what was enqueued.
    /// Meanwhile, operators act on linked jobs.
    async fn torment(
        &self,
        torturer: &Arc<Torturer>,
        faults: Vec<Fault>,
        queues: &[TestQueue],
        database: &Database,
        acts: &Arc<Acts>,
        figures: &mut TortureFigures,
    ) -> Result<Produced, Failure> {
        let until = Instant::now() + self.length;
        let producing = (0..PRODUCERS).map(|number| {
            let per_second = self.rate / f64::from(PRODUCERS);
            tokio::spawn(producers::produce(database.clone(), number.into(), queues.to_vec(), per_second, until))
        });
        let producing = futures::future::join_all(producing.collect::<Vec<_>>());
        let with_linked = has_linked(queues);
        let operating = with_linked.then(|| tokio::spawn(linked::operate(database.clone(), Arc::clone(acts))));
        let (broken, produced) = tokio::join!(Arc::clone(torturer).run(faults), producing);
        broken?;
        if let Some(operating) = operating {
            operating.abort();
        }
        torturer.progress.note("the last jobs are worked");
        if with_linked {
            linked::seal_all(database).await.map_err(|error| error.to_string())?;
        }
        until_worked(database, &torturer.fleet).await?;
        if with_linked {
            linked::check::stalled(figures, &database.client().await?).await?;
            let mut repairs = 0..REPAIRS;
            while repairs.next().is_some() && linked::repair(database).await.map_err(|error| error.to_string())? {
                until_worked(database, &torturer.fleet).await?;
            }
        }
        let mut all = Produced::default();
        for produced in produced {
            let Produced { committed, emitted } = produced.map_err(|error| error.to_string())?;
            all.committed.extend(committed);
            all.emitted.extend(emitted);
        }
        Ok(all)
    }
}

/// What a run knows besides the tables.
struct Evidence {
    produced: Produced,
    lives: Vec<Life>,
    /// The times at which the server was back after a crash.
    back: Vec<Duration>,
    most_reserved: Arc<MostReserved>,
    acts: Arc<Acts>,
}

impl Evidence {
    /// Compares this with the tables, and adds the figures. Prints why workers gave up.
    async fn report(
        &self,
        figures: &mut TortureFigures,
        (queues, kinds): (&[TestQueue], &[Kind]),
        database: &Database,
    ) -> Outcome {
        let Evidence { produced: Produced { committed, emitted }, lives, back, most_reserved, acts } = self;
        let client = database.client().await?;
        report::database(figures, &client, committed).await?;
        let runs = report::runs(lives);
        report::journals(figures, &runs, lives, committed, back);
        limits::report(figures, (queues, kinds), most_reserved, &runs, committed);
        if has_linked(queues) {
            let seen = linked::check::Seen { committed, lives, emitted, acts, back, kinds };
            linked::check::report(figures, &client, &runs, seen).await?;
        }
        for life in lives.iter().filter(|life| life.gave_up) {
            say!("a worker gave up: {}", life.last_line());
        }
        Ok(())
    }
}

fn has_linked(queues: &[TestQueue]) -> bool {
    queues.iter().any(|queue| queue.is_linked())
}

/// Returns true if a job is live, or a worker has something to do for linked jobs.
const WORK_IS_LEFT: &str = "select exists (select from reveille.jobs) or reveille.linked_work_waits()";

/// Waits until no job is live and no end of a linked job is to be applied, for at most [`LAST_JOBS`].
async fn until_worked(database: &Database, fleet: &Fleet) -> Outcome {
    let deadline = Instant::now() + LAST_JOBS;
    while Instant::now() < deadline {
        fleet.replace_ended().await?;
        let left = async {
            let row = database.client().await?.query_one(WORK_IS_LEFT, &[]).await?;
            Ok::<bool, Failure>(row.get(0))
        };
        if let Ok(Ok(false)) = tokio::time::timeout(Duration::from_secs(10), left).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn login(url: &str) -> Result<String, Failure> {
    let config: tokio_postgres::Config = url.parse()?;
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
    Ok(format!("user={} password={password} dbname=postgres", config.get_user().unwrap_or_default()))
}

fn print(figures: &TortureFigures, json: bool) -> std::io::Result<()> {
    if json {
        return output::line(Value::Object(figures.clone()));
    }
    let width = figures.keys().map(String::len).max().unwrap_or(0);
    figures.iter().try_for_each(|(name, value)| output::line(format!("{name:width$}  {value:>12}")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder for the journals. Dropping this removes the folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, Failure> {
        let path = std::env::temp_dir().join(format!("reveille-torture-{:08x}", fastrand::u32(..)));
        std::fs::create_dir(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
