//! Reading a queue, pausing a queue, changing its settings, and waiting until a queue is drained.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::types::{ToSql, Type};

use super::actor::{Changed, difference};
use super::{Admin, as_bytes, records};
use crate::database::Param;
use crate::error::{Error, Result};
use crate::job::check_name;
use crate::queue::{Pause, QueueSettings};

/// The work that a queue has left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// The number of due jobs that wait, counted up to 10,000. This includes jobs that the queue's limits or order hold
    /// back, so not all of them could start now.
    pub ready: u64,
    /// The number of jobs that workers hold.
    pub running: u64,
    /// The number of delayed jobs, including jobs that wait for a retry, counted up to 10,000.
    pub delayed: u64,
    /// The number of blocked jobs, which wait for the ends of other jobs, counted up to 10,000.
    pub blocked: u64,
    /// True if the queue is paused, so that ready jobs do not start.
    pub paused: bool,
    /// The number of live workers of the queue.
    pub workers: u64,
}

impl Backlog {
    /// True if no job is running and no job is ready. In a paused queue, ready jobs do not count.
    pub fn is_drained(&self) -> bool {
        self.running == 0 && (self.ready == 0 || self.paused)
    }
}

/// The answer of [`Admin::remove_queue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemovedQueue {
    /// The queue was removed.
    Removed,
    /// Nothing was removed: the queue is in use.
    InUse(QueueUse),
    /// Nothing was removed: nothing is known of the queue.
    Unknown,
}

/// What uses a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueUse {
    /// The number of jobs that wait, counted up to 10,000.
    pub waiting: u64,
    /// The number of blocked jobs, counted up to 10,000.
    pub blocked: u64,
    /// The number of jobs that workers hold.
    pub running: u64,
    /// The number of dead jobs, counted up to 10,000.
    pub dead: u64,
    /// The number of workers that work the queue.
    pub workers: u64,
    /// The number of schedules that enqueue into the queue.
    pub schedules: u64,
}

/// The statements that pause and resume a queue.
const PAUSE: &str = "select reveille.pause($1, $2, $3)";
const RESUME: &str = "select reveille.resume($1, $2, $3)";
/// The statements count waiting jobs and dead jobs up to this number.
const MOST_COUNTED: u64 = 10_000;
/// The largest number of jobs that one statement unparks.
const MOST_UNPARKED: i64 = 10_000;
/// The pause between the first two counts of a wait for a drained queue. The pause doubles after each count, up to the
/// longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A pause lasts at least 20 times as long as the count before, so that counting takes 5 % of the time at most.
const PAUSE_PER_COUNT: u32 = 20;

/// The parameters of `reveille.pause` and `reveille.resume`.
fn params_of(pause: &Pause) -> [Param<'_>; 3] {
    [(&pause.queue, Type::TEXT), (&pause.kind, Type::TEXT), (&pause.key, Type::TEXT)]
}

/// Returns what a pause is of, for the record of actions.
fn target_of(pause: &Pause) -> Value {
    let names = [("queue", &pause.queue), ("kind", &pause.kind), ("key", &pause.key)];
    names.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value.clone()?)))).collect()
}

impl Admin {
    /// Returns the names of all queues that have jobs, settings or a worker, or in which an attempt ended within the
    /// last day.
    ///
    /// # Errors
    /// The server's error.
    pub async fn queues(&self) -> Result<Vec<String>> {
        let sql = as_bytes!("select to_jsonb(v) as record from reveille.known_queues as v order by queue");
        records(&self.read("list queues", sql, &[]).await?)?.iter().map(|row| row.decode("queue")).collect()
    }

    /// Returns true if the queue is known: it has settings, a job, a worker, or counts of ended attempts.
    ///
    /// # Errors
    /// Invalid for a bad name; else the server's error.
    pub async fn is_known(&self, queue: &str) -> Result<bool> {
        check_name("queue", queue)?;
        let sql = "select exists (select from reveille.queue_totals where queue = $1)
            or exists (select from reveille.known_queues where queue = $1) as known";
        let rows = self.read("find a queue", sql, &[(&queue, Type::TEXT)]).await?;
        Ok(rows.first().is_some_and(|row| row.get("known")))
    }

    /// Pauses a queue, a kind, a key, or several of these together: no worker starts these jobs until they are resumed.
    ///
    /// Running jobs go on. Workers release the jobs that they have claimed and not started. [`View::PauseStatus`] lists
    /// the pauses.
    ///
    /// [`View::PauseStatus`]: super::View::PauseStatus
    ///
    /// ```no_run
    /// # async fn example(admin: reveille::admin::Admin) -> reveille::Result<()> {
    /// use reveille::admin::Pause;
    ///
    /// admin.pause("mail").await?;
    /// admin.pause(Pause::new().kind("charge").key("card 7")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Invalid for a bad name or key, or a pause that names nothing; else the server's error.
    pub async fn pause(&self, pause: impl Into<Pause>) -> Result<()> {
        let pause = pause.into();
        pause.check()?;
        let mut change = self.change("pause jobs");
        change.query(PAUSE, &params_of(&pause)).await?;
        change.record("pause", target_of(&pause), json!({"answer": "paused"})).await
    }

    /// Ends the pause that [`Admin::pause`] began with the same argument. A job that another pause covers, too, stays
    /// paused.
    ///
    /// # Errors
    /// As [`Admin::pause`].
    pub async fn resume(&self, pause: impl Into<Pause>) -> Result<()> {
        let pause = pause.into();
        pause.check()?;
        let mut change = self.change("resume jobs");
        change.query(RESUME, &params_of(&pause)).await?;
        change.record("resume", target_of(&pause), json!({"answer": "resumed"})).await?;
        // The end of a pause unparks only the first 10,000 jobs.
        while !pause.is_of_queue() && self.unpark().await? {}
        Ok(())
    }

    /// Unparks jobs whose pause has ended. Returns whether there were any.
    async fn unpark(&self) -> Result<bool> {
        let rows = self.query("unpark jobs", include_str!("../../sql/unpark.sql"), &[(&MOST_UNPARKED, Type::INT8)]);
        Ok(rows.await?.first().is_some_and(|row| row.get::<_, i64>("unparked") > 0))
    }

    /// Counts the work that a queue has left.
    ///
    /// # Errors
    /// Invalid for a bad name; else the server's error.
    pub async fn backlog(&self, queue: &str) -> Result<Backlog> {
        check_name("queue", queue)?;
        let rows = self.read("count jobs", include_str!("../../sql/backlog.sql"), &[(&queue, Type::TEXT)]).await?;
        let row = rows.first().ok_or_else(|| Error::unavailable("cannot count jobs: the server returned no row"))?;
        let count = |column| row.get::<_, i64>(column).max(0) as u64;
        Ok(Backlog {
            ready: count("ready"),
            running: count("running"),
            delayed: count("delayed"),
            blocked: count("blocked"),
            paused: row.get("paused"),
            workers: count("workers"),
        })
    }

    /// Waits until a queue [is drained](Backlog::is_drained): no job in it is ready or running.
    ///
    /// Calls `progress` with each count. The counts are at most a second apart, or further apart if counting takes
    /// longer than 50 ms. This also waits for jobs that are enqueued meanwhile. It does not wait for delayed jobs, such
    /// as jobs that wait for a retry, nor for blocked jobs. If the queue is paused, this waits only for running jobs.
    /// There is no time limit: put a `tokio::time::timeout` around the call.
    ///
    /// This call works no jobs; the queue's workers do. To work jobs in a test, see [`testing`](crate::testing).
    ///
    /// # Errors
    /// As [`Admin::backlog`].
    pub async fn wait_until_drained(&self, queue: &str, mut progress: impl FnMut(Backlog)) -> Result<Backlog> {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let backlog = self.backlog(queue).await?;
            let shortest = began.elapsed() * PAUSE_PER_COUNT;
            progress(backlog);
            if backlog.is_drained() {
                return Ok(backlog);
            }
            tokio::time::sleep(pause.max(shortest)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Changes settings of a queue. Workers obey the changed settings from their next claim on.
    ///
    /// # Errors
    /// Invalid for a bad name or a setting out of its range; else the server's error.
    pub async fn set_queue(&self, queue: &str, settings: QueueSettings) -> Result<()> {
        check_name("queue", queue)?;
        let columns = settings.columns()?;
        if columns.is_empty() && settings.paused.is_none() {
            return Ok(());
        }
        let mut change = self.change("change the settings of a queue");
        let before = change.settings(Changed::Queue(queue)).await?;
        if !columns.is_empty() {
            let columns = Value::from(columns);
            let params: [(&(dyn ToSql + Sync), Type); 2] = [(&queue, Type::TEXT), (&columns, Type::JSONB)];
            change.query(include_str!("../../sql/set_queue.sql"), &params).await?;
        }
        if let Some(paused) = settings.paused {
            let pause = Pause::new().queue(queue);
            change.query(if paused { PAUSE } else { RESUME }, &params_of(&pause)).await?;
        }
        let after = change.settings(Changed::Queue(queue)).await?;
        change.record("set_queue", json!({"queue": queue}), difference("set", before, after)).await
    }

    /// Removes the settings and counters of a queue that nothing uses, so that no view shows it any more. The history
    /// of its jobs stays for a day.
    ///
    /// If a job, a worker or a schedule uses the queue, nothing is removed. A job that is enqueued into the queue later
    /// makes it known again, with default settings.
    ///
    /// # Errors
    /// Invalid for a bad name; else the server's error.
    pub async fn remove_queue(&self, queue: &str) -> Result<RemovedQueue> {
        check_name("queue", queue)?;
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&queue, Type::TEXT)];
        let mut change = self.change("remove a queue");
        let before = change.settings(Changed::Queue(queue)).await?;
        let row = change.row(include_str!("../../sql/remove_queue.sql"), &params).await?;
        let count = |column| row.get::<_, i64>(column).max(0) as u64;
        let used = QueueUse {
            waiting: count("waiting"),
            blocked: count("blocked"),
            running: count("running"),
            dead: count("dead"),
            workers: count("workers"),
            schedules: count("schedules"),
        };
        let target = json!({"queue": queue});
        if used != QueueUse::default() {
            change.record("remove_queue", target, json!({"answer": "in_use", "used_by": used.to_string()})).await?;
            return Ok(RemovedQueue::InUse(used));
        }
        change.query(include_str!("../../sql/remove_queue_totals.sql"), &params).await?;
        let is_known = row.get("is_known");
        let answer = if is_known { "removed" } else { "unknown" };
        change.record("remove_queue", target, difference(answer, before, None)).await?;
        Ok(if is_known { RemovedQueue::Removed } else { RemovedQueue::Unknown })
    }
}

impl fmt::Display for QueueUse {
    /// Lists what uses the queue, such as `3 waiting jobs, 1 worker`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.waiting, MOST_COUNTED, "waiting job"),
            (self.blocked, MOST_COUNTED, "blocked job"),
            (self.running, u64::MAX, "running job"),
            (self.dead, MOST_COUNTED, "dead job"),
            (self.workers, u64::MAX, "worker"),
            (self.schedules, u64::MAX, "schedule"),
        ];
        for (place, (count, most, what)) in counts.into_iter().filter(|(count, ..)| *count > 0).enumerate() {
            let (comma, plural) = (if place == 0 { "" } else { ", " }, if count == 1 { "" } else { "s" });
            let more = if count >= most { " or more" } else { "" };
            write!(f, "{comma}{count}{more} {what}{plural}")?;
        }
        Ok(())
    }
}
