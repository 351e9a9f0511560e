//! Reads the views at each interval, and carries out the user's actions. If the connection is lost, this connects
//! again.

use std::time::Duration;

use reveille::Database;
use reveille::admin::{Admin, Filter, REASONS};
use serde_json::value::RawValue;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::action::DatabaseAction;
use super::model::{Head, Update};
use super::page::Want;
use super::row::Row;
use crate::connection::Connection;
use crate::operator;

/// The longest time to wait for an answer before giving up the connection. The server itself ends a query after 20 s.
const PATIENCE: Duration = Duration::from_secs(25);

/// A session that is opened again after a loss.
pub struct Session {
    connection: Connection,
    database: Option<Database>,
}

impl Session {
    pub fn new(connection: Connection, database: Database) -> Session {
        Session { connection, database: Some(database) }
    }

    async fn admin(&mut self) -> reveille::Result<Admin> {
        let database = match &self.database {
            Some(database) => database,
            None => self.database.insert(self.connection.lookout().await?),
        };
        Ok(database.admin())
    }

    /// Runs a query, and gives up the connection if there is no answer.
    async fn ask<T>(
        &mut self,
        query: impl AsyncFnOnce(Admin) -> reveille::Result<T>,
    ) -> Result<reveille::Result<T>, String> {
        let answer = tokio::time::timeout(PATIENCE, async { query(self.admin().await?).await }).await;
        match answer {
            Ok(Err(error)) if error.is_unavailable() => {
                // The next read connects again, because the server may have moved to another address.
                self.database = None;
                Err(error.to_string())
            }
            Ok(answer) => Ok(answer),
            Err(_) => {
                self.database = None;
                Err(format!("the database has not answered within {PATIENCE:?}"))
            }
        }
    }

    /// Reads the queues and their sums.
    pub async fn overview(&mut self) -> Update {
        match self.ask(async |admin| admin.overview().await).await {
            Ok(Ok(record)) => {
                let head = Head {
                    at: record.decode("at").unwrap_or_default(),
                    sums: record.decode("sums").unwrap_or_default(),
                };
                let queues: Vec<Box<RawValue>> = record.decode("queues").unwrap_or_default();
                Update::Overview(head, queues.iter().filter_map(|queue| Row::parse(queue.get())).collect())
            }
            Ok(Err(error)) => Update::Lost(error.to_string()),
            Err(lost) => Update::Lost(lost),
        }
    }

    /// Reads what the model wants; `None` if that is nothing.
    pub async fn fetch(&mut self, want: &Want) -> Option<Update> {
        Some(match want {
            Want::Queues => return None,
            Want::List(list) => match self.ask(async |admin| admin.overview_list(list).await).await {
                Ok(rows) => {
                    let rows = rows.map(|rows| rows.iter().map(Row::from).collect());
                    Update::List(want.clone(), rows.map_err(|error| error.to_string()))
                }
                Err(lost) => Update::Lost(lost),
            },
            Want::Job(id) => match self.ask(async |admin| admin.job(*id).await).await {
                Ok(job) => {
                    let job = job.map(|job| job.map(|job| Row::from(job.record())));
                    Update::Job(*id, job.map_err(|error| error.to_string()))
                }
                Err(lost) => Update::Lost(lost),
            },
        })
    }

    async fn act(&mut self, action: &DatabaseAction) -> String {
        match self.ask(async |admin| act(&admin, action).await).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => error.to_string(),
            Err(lost) => lost,
        }
    }
}

/// Sends updates until the receiver of updates, or a sender of actions or wants, is gone.
pub async fn run(
    mut session: Session,
    every: Duration,
    mut actions: Receiver<DatabaseAction>,
    mut wants: watch::Receiver<Want>,
    updates: Sender<Update>,
) {
    let mut looks = tokio::time::interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut answers = Vec::new();
        tokio::select! {
            action = actions.recv() => {
                let Some(action) = action else { return };
                let done = session.act(&action).await;
                answers.push(Update::Done(format!("{action}: {done}")));
                // Reads the views at once, to show the changes that the action made.
                looks.reset_at(Instant::now());
            }
            changed = wants.changed() => {
                if changed.is_err() {
                    return;
                }
                let want = wants.borrow_and_update().clone();
                answers.extend(session.fetch(&want).await);
            }
            _ = looks.tick() => {
                let overview = session.overview().await;
                let is_lost = matches!(overview, Update::Lost(_));
                answers.push(overview);
                if !is_lost {
                    let want = wants.borrow_and_update().clone();
                    answers.extend(session.fetch(&want).await);
                }
            }
        }
        for answer in answers {
            if updates.send(answer).await.is_err() {
                return;
            }
        }
    }
}

async fn act(admin: &Admin, action: &DatabaseAction) -> reveille::Result<String> {
    let admin = &admin.acting_as(operator::name(), "top")?;
    let found = |found: bool| if found { "done" } else { "no such schedule" }.to_owned();
    match action {
        DatabaseAction::Pause(queue) => admin.pause(queue).await.map(|()| "done".into()),
        DatabaseAction::Resume(queue) => admin.resume(queue).await.map(|()| "done".into()),
        DatabaseAction::Retry(id) => admin.retry(*id).await.map(|retried| retried.name().into()),
        DatabaseAction::Cancel(id) => admin.cancel(*id).await.map(|cancelled| cancelled.name().into()),
        DatabaseAction::PauseSchedule(name) => admin.pause_schedule(name).await.map(found),
        DatabaseAction::ResumeSchedule(name) => admin.resume_schedule(name).await.map(found),
        DatabaseAction::TriggerSchedule(name) => {
            let job = admin.trigger_schedule(name).await?;
            Ok(job.map_or_else(|| found(false), |job| format!("job {job}")))
        }
        DatabaseAction::Revive { queue, kind, reason } => {
            let Some(reason) = REASONS.into_iter().find(|known| known.name() == reason) else {
                return Ok(format!("not revived: unknown reason {reason}"));
            };
            let filter = Filter::new().queue(queue).kind(kind).reason(reason);
            let batch = admin.revive_dead(&filter).await?;
            Ok(match (batch.left_over, batch.refused.len()) {
                (0, 0) => format!("{} revived", batch.done),
                (0, refused) => format!("{} revived, {refused} refused by the server", batch.done),
                (left, _) => format!("{} revived, {left} not, because live jobs hold their unique keys", batch.done),
            })
        }
    }
}
