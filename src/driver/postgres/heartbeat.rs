//! The heartbeat's session.

use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use futures::FutureExt;
use tokio_postgres::Row;

use super::session::{ASYNCHRONOUS, Plan, Sessions, Statement, in_transaction, run, settings};
use crate::database::Database;
use crate::database::busy::give_up;
use crate::error::{Error, Result};

/// The heartbeat's session. It belongs to the runtime that opens it.
pub(crate) struct HeartbeatSession {
    client: ClientWrapper,
    begin: Option<Arc<str>>,
}

impl HeartbeatSession {
    pub(crate) async fn open(database: &Database, sessions: &Sessions) -> Result<HeartbeatSession> {
        let (client, connection) = sessions.open_beside(database.address(), "reveille heartbeat").await?;
        let connection = tokio::spawn(connection.map(drop));
        let client = ClientWrapper::new(client, connection);
        // If a crash undoes a heartbeat, the previous heartbeat is as good.
        let (set, begin) = settings(database, &[ASYNCHRONOUS, "statement_timeout = '5s'"]);
        client.batch_execute(&set).await.map_err(|error| Error::database("set up a session", error))?;
        Ok(HeartbeatSession { client, begin })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Closes the session, and cancels the statement that it runs.
    pub(crate) fn give_up(self, database: &Database) {
        give_up(self.client, database);
    }

    pub(crate) async fn query(&self, plan: Plan, statement: Statement<'_>) -> Result<Vec<Row>, tokio_postgres::Error> {
        match (&self.begin, plan) {
            (Some(begin), _) => in_transaction(&self.client, begin, None, statement).await,
            (None, Plan::Kept) => run(&self.client, statement).await,
            (None, Plan::Fresh) => self.client.query_typed(statement.0, statement.1).await,
        }
    }
}
