//! The transactions in which a handler can complete its job.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Param;
use crate::error::{Error, Result};

/// A transaction in which [`Context::complete_in`](crate::Context::complete_in) completes a job: a reference to a
/// transaction of tokio-postgres or deadpool-postgres.
///
/// With the feature `sqlx`, it is also `&mut transaction` of sqlx, or `&mut *transaction`, which is a connection.
#[diagnostic::on_unimplemented(
    message = "a job cannot be completed in `{Self}`",
    label = "not a transaction",
    note = "pass a reference to a transaction: `&transaction`, or `&mut transaction` of sqlx with the feature `sqlx`"
)]
pub trait CompleteIn: sealed::RunIn {}

pub(crate) mod sealed {
    use super::{BoxFuture, Param, Result};

    /// Runs statements in a transaction.
    pub trait RunIn: Send {
        /// Returns the text in the first column of the first row; `None` if there is no row, or the text is null.
        fn text<'a>(&'a mut self, sql: &'a str, params: &'a [Param<'a>]) -> BoxFuture<'a, Result<Option<String>>>;
    }
}

/// Implements the trait for transactions of tokio-postgres, on which a statement takes one round trip.
macro_rules! complete_in {
    ($($transaction:ty),+) => {$(
        impl CompleteIn for &$transaction {}

        impl sealed::RunIn for &$transaction {
            fn text<'a>(&'a mut self, sql: &'a str, params: &'a [Param<'a>]) -> BoxFuture<'a, Result<Option<String>>> {
                async move {
                    let rows = self.query_typed(sql, params).await;
                    let rows = rows.map_err(|error| Error::database("complete the job", error))?;
                    Ok(rows.first().and_then(|row| row.get(0)))
                }
                .boxed()
            }
        }
    )+};
}

complete_in!(tokio_postgres::Transaction<'_>, deadpool_postgres::Transaction<'_>);
