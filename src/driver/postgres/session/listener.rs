//! The listener's session, lent for the claim that a bell asks for: its process at the server has just been woken to pass the
//! bell on, and answers sooner than one that has slept since the job before.

use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio::sync::Mutex;
use tokio_postgres::Row;

use super::{Statement, in_time, run};
use crate::error::Result;

/// The session of whoever listens, if there is one to be lent.
#[derive(Default)]
pub(crate) struct Line(Mutex<Weak<ClientWrapper>>);

impl Line {
    /// From here on it is this one, as long as its listener keeps it.
    pub(crate) async fn open(&self, client: &Arc<ClientWrapper>) {
        *self.0.lock().await = Arc::downgrade(client);
    }

    /// Runs a statement in it; `None` if there is none, or if it is in use. Signals wait for the answer.
    ///
    /// After an error it is not lent again; whether it still hears, its listener finds out by itself.
    pub(crate) async fn query(
        &self,
        patience: Duration,
        what: &str,
        statement: Statement<'_>,
    ) -> Option<Result<Vec<Row>>> {
        let mut line = self.0.try_lock().ok()?;
        let client = line.upgrade().filter(|client| !client.is_closed())?;
        let answer = in_time(patience, what, run(&client, statement)).await;
        if answer.is_err() {
            *line = Weak::new();
        }
        Some(answer)
    }
}
