//! Transactions of several statements, in which the program reads one answer before it sends the next statement.

use futures::future::{BoxFuture, FutureExt};
use tokio_postgres::Row;

use super::busy::BusySession;
use super::{Database, Param};
use crate::error::{Error, Result};

/// A transaction of the program's statements. It begins with the first statement. If this is dropped before the commit,
/// the server rolls the transaction back.
///
/// The futures are boxed, so that their code is compiled once, and not in each crate that changes something.
pub(crate) struct Transaction {
    database: Database,
    what: String,
    /// The session, once the transaction has begun.
    session: Option<BusySession>,
}

impl Database {
    /// Prepares a transaction. `what` says what the program cannot do if a statement fails: "cannot {what}".
    pub(crate) fn transaction(&self, what: &str) -> Transaction {
        Transaction { database: self.clone(), what: what.to_owned(), session: None }
    }
}

impl Transaction {
    /// Runs a statement. If it fails, the transaction is rolled back and cannot go on.
    pub(crate) fn query<'a>(&'a mut self, sql: &'a str, params: &'a [Param<'a>]) -> BoxFuture<'a, Result<Vec<Row>>> {
        async move {
            let (session, begin) = match self.session.take() {
                Some(session) => (session, None),
                None => (self.database.busy_session().await?, Some(super::beginning())),
            };
            let client = session.client()?;
            let begin = async {
                match &begin {
                    Some(begin) => client.batch_execute(begin).await,
                    None => Ok(()),
                }
            };
            // Both messages are sent at once.
            let (begun, rows) = futures::join!(begin, client.query_typed(sql, params));
            match begun.and(rows) {
                Ok(rows) => {
                    self.session = Some(session);
                    Ok(rows)
                }
                Err(error) => {
                    let error = Error::database(&self.what, error);
                    roll_back(session).await;
                    Err(error)
                }
            }
        }
        .boxed()
    }

    /// Runs the last statement and commits. Both messages are sent at once: if the statement fails, the server rolls
    /// the transaction back.
    pub(crate) fn commit_with<'a>(mut self, sql: &'a str, params: &'a [Param<'a>]) -> BoxFuture<'a, Result<Vec<Row>>> {
        async move {
            let failed = |error| Error::database(&self.what, error);
            let Some(session) = self.session.take() else {
                return Err(Error::invalid(format!("cannot {}: its transaction has not begun", self.what)));
            };
            let client = session.client()?;
            let (rows, committed) = futures::join!(client.query_typed(sql, params), client.batch_execute("commit"));
            session.finish();
            let rows = rows.map_err(failed)?;
            committed.map_err(failed)?;
            Ok(rows)
        }
        .boxed()
    }

    /// Rolls the transaction back, and gives the session back.
    pub(crate) fn roll_back(mut self) -> BoxFuture<'static, ()> {
        async move {
            if let Some(session) = self.session.take() {
                roll_back(session).await;
            }
        }
        .boxed()
    }
}

/// Gives the session back only after a rollback; else the session is closed, which ends the transaction, too.
async fn roll_back(session: BusySession) {
    let Ok(client) = session.client() else { return };
    if client.batch_execute("rollback").await.is_ok() {
        session.finish();
    }
}
