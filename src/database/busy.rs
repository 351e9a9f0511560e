//! Sessions that run a statement for a caller, who may give the statement up.
//!
//! A server goes on with a statement whose connection is closed, and keeps its session. `statement_timeout` does not
//! end a commit that waits: for another commit that notifies, or for a synchronous standby. So a statement that is
//! given up is also cancelled. Otherwise, each try would leave one more session that waits.

use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object};
use tokio::runtime::Handle;

use super::Database;
use crate::error::{Error, Result};

/// The longest time that a request to cancel a statement may take. After this time, the session is closed in any case.
const CANCELLED_WITHIN: Duration = Duration::from_secs(5);
/// The time for which a pooled session is kept after the request. The end of the statement needs about as long as the
/// request. But if the statement's answer is under way, each moment takes bandwidth from the next statement.
const ENDED_WITHIN: Duration = Duration::from_secs(1);

/// A pooled session that may be running a statement. Once the answer is there, `finish` gives the session back to its
/// pool. If this is dropped before, as when the caller waits no longer, the statement is cancelled and the session is
/// closed. So the pool never lends a session that is still busy with an earlier statement.
pub(crate) struct BusySession {
    client: Option<Object>,
    database: Database,
}

impl BusySession {
    pub(crate) fn new(client: Object, database: &Database) -> BusySession {
        BusySession { client: Some(client), database: database.clone() }
    }

    pub(crate) fn client(&self) -> Result<&Object> {
        self.client.as_ref().ok_or_else(|| Error::unavailable("the session was given back"))
    }

    pub(crate) fn finish(mut self) {
        drop(self.client.take());
    }

    /// Gives the session back, unless the answer says that the server cannot be reached: the connection may then have
    /// been cut off without an error.
    pub(crate) fn finish_after<T>(self, answer: &Result<T>) {
        if !answer.as_ref().is_err_and(Error::is_unavailable) {
            self.finish();
        }
    }
}

impl Drop for BusySession {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            give_up(Object::take(client), &self.database);
        }
    }
}

/// Cancels the statement that a session runs, if there is one, and closes the session. Does this in the background.
pub(crate) fn give_up(client: ClientWrapper, database: &Database) {
    let (Ok(runtime), Ok(tls)) = (Handle::try_current(), database.address().security().connector()) else { return };
    if client.is_closed() {
        return;
    }
    let is_pooled = database.is_pooled();
    runtime.spawn(async move {
        let _ = tokio::time::timeout(CANCELLED_WITHIN, client.cancel_token().cancel_query(tls)).await;
        if is_pooled {
            // Waits for the end of the statement, since a pooler may ignore a request whose client has gone.
            let _ = tokio::time::timeout(ENDED_WITHIN, client.batch_execute("")).await;
        }
    });
}
