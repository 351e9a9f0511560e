//! Reads the views at each interval, and carries out the user's actions. If the connection is lost, this connects
//! again.

use std::time::Duration;

use reveille::Database;
use reveille::admin::{Filter, REASONS, Record};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, MissedTickBehavior};

use super::model::{DatabaseAction, Overview};
use crate::connection::Connection;

/// A change that the model takes in.
pub enum Update {
    Overview(Result<Overview, String>),
    /// The result of an action.
    Done(String),
}

/// The longest time to wait for an answer before giving up the connection. The server itself ends a query after 20 s.
const PATIENCE: Duration = Duration::from_secs(25);

/// Sends updates until the receiver of updates or the sender of actions is gone.
pub async fn run(
    connection: Connection,
    database: Database,
    every: Duration,
    mut actions: Receiver<DatabaseAction>,
    updates: Sender<Update>,
) {
    let mut database = Some(database);
    let mut looks = tokio::time::interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            action = actions.recv() => {
                let Some(action) = action else { return };
                let done = within(act(&connection, &mut database, &action)).await;
                let done = done.unwrap_or_else(|error| error);
                if updates.send(Update::Done(format!("{action}: {done}"))).await.is_err() {
                    return;
                }
                // Reads the views at once, to show the changes that the action made.
                looks.reset_at(Instant::now());
            }
            _ = looks.tick() => {
                let overview = within(look(&connection, &mut database)).await;
                if overview.is_err() {
                    // The next read connects again, because the server may have moved to another address.
                    database = None;
                }
                if updates.send(Update::Overview(overview)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn within<T>(query: impl Future<Output = reveille::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, query).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the database has not answered within {PATIENCE:?}")),
    }
}

async fn connected(connection: &Connection, database: &mut Option<Database>) -> reveille::Result<Database> {
    match database {
        Some(database) => Ok(database.clone()),
        None => Ok(database.insert(connection.lookout().await?).clone()),
    }
}

pub async fn look(connection: &Connection, database: &mut Option<Database>) -> reveille::Result<Overview> {
    let record = connected(connection, database).await?.admin().overview().await?;
    Ok(overview(&record))
}

/// Decodes each row separately, so that a row that cannot be decoded hides no other row.
fn overview(record: &Record) -> Overview {
    Overview {
        at: record.decode("at").unwrap_or_default(),
        sums: record.decode("sums").unwrap_or_default(),
        queues: rows(record, "queues"),
        workers: rows(record, "workers"),
        running: rows(record, "running"),
        failing: rows(record, "failing"),
        dead: rows(record, "dead"),
    }
}

fn rows<T: DeserializeOwned>(record: &Record, name: &str) -> Vec<T> {
    let rows: Vec<Box<RawValue>> = record.decode(name).unwrap_or_default();
    rows.iter().filter_map(|row| serde_json::from_str(row.get()).ok()).collect()
}

async fn act(
    connection: &Connection,
    database: &mut Option<Database>,
    action: &DatabaseAction,
) -> reveille::Result<String> {
    let admin = connected(connection, database).await?.admin();
    match action {
        DatabaseAction::Pause(queue) => admin.pause(queue).await.map(|()| "done".into()),
        DatabaseAction::Resume(queue) => admin.resume(queue).await.map(|()| "done".into()),
        DatabaseAction::Retry(id) => admin.retry(*id).await.map(|retried| retried.name().into()),
        DatabaseAction::Cancel(id) => admin.cancel(*id).await.map(|cancelled| cancelled.name().into()),
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
