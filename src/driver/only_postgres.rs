//! The parts of a driver that only Postgres has. On any other store, most of these methods do nothing.

use std::collections::HashMap;
use std::time::Duration;

use super::{Driver, Marks, NamedCount};
use crate::database::complete_in::sealed::RunIn;
use crate::error::{Error, Result};
use crate::job::Reservation;

impl dyn Driver {
    /// Returns the schema of Reveille's tables. A handler needs it to enqueue on a client, because a client does not
    /// know the schema.
    pub(crate) fn schema(&self) -> &str {
        self.postgres().map_or("reveille", |postgres| postgres.database().schema_name())
    }

    /// Returns for each level the place of the first due and unreserved job at or above the mark of the level; `None`
    /// if the level has no due and unreserved job there.
    pub(crate) async fn heads(&self, queue: &str, from: Marks) -> Result<Marks> {
        match self.postgres() {
            Some(postgres) => postgres.heads(queue, from).await,
            None => Ok(Marks::default()),
        }
    }

    /// Returns whether notifying commits wait for each other. If they do, a worker that finds jobs stays awake, so that
    /// producers need not notify it.
    pub(crate) async fn signals_wait(&self) -> Result<bool> {
        match self.postgres() {
            Some(postgres) => postgres.signals_wait().await,
            None => Ok(false),
        }
    }

    /// Completes a job in the caller's transaction, if its reservation still stands. Returns the id of the transaction;
    /// `None` if the reservation does not stand.
    pub(crate) async fn complete_in(
        &self,
        transaction: &mut dyn RunIn,
        reservation: &Reservation,
        ran: Duration,
    ) -> Result<Option<String>> {
        match self.postgres() {
            Some(postgres) => postgres.complete_in(transaction, reservation, ran).await,
            None => Err(Error::invalid(
                "a job can only be completed in a transaction of the Postgres database that it is stored in",
            )),
        }
    }

    /// Returns the queues of the jobs that a program has completed under these reservations by the SQL function
    /// `reveille.complete_in`, by the id and the attempt of each job.
    pub(crate) async fn completed_in_sql(&self, reservations: &[Reservation]) -> Result<HashMap<(i64, i32), String>> {
        match self.postgres() {
            Some(postgres) => postgres.completed_in_sql(reservations).await,
            None => Ok(HashMap::new()),
        }
    }

    /// Checks if a transaction of `complete_in` has completed its job. Returns `None` while the transaction is open,
    /// then true if the reservation is gone and false if it stands.
    pub(crate) async fn is_recorded(&self, transaction: &str, reservation: &Reservation) -> Result<Option<bool>> {
        match self.postgres() {
            Some(postgres) => postgres.is_recorded(transaction, reservation).await,
            None => Ok(Some(false)),
        }
    }

    /// Opens sessions and prepares their statements, so that a burst of jobs need not wait for that. Only the first
    /// call does it.
    pub(crate) async fn warm_up(&self) -> Result<()> {
        match self.postgres() {
            Some(postgres) => postgres.warm_up().await,
            None => Ok(()),
        }
    }

    /// Adds a worker's counts of attempts by kind to the stored counts.
    pub(crate) async fn count_kinds(&self, counts: &[NamedCount]) -> Result<()> {
        match self.postgres() {
            Some(postgres) => postgres.count_kinds(counts).await,
            None => Ok(()),
        }
    }

    /// Notes that ends of linked jobs may have to be applied.
    pub(crate) fn linked_ends_wait(&self) {
        if let Some(postgres) = self.postgres() {
            postgres.linked_ends_wait();
        }
    }

    /// Waits until ends of linked jobs may have to be applied. Any other store applies an end when it records the end.
    pub(crate) async fn linked_ended(&self) {
        match self.postgres() {
            Some(postgres) => postgres.linked_ended().await,
            None => std::future::pending().await,
        }
    }

    /// Applies ends of linked jobs to the jobs that wait for them. Returns whether there may be more.
    pub(crate) async fn apply_linked_ends(&self) -> Result<bool> {
        match self.postgres() {
            Some(postgres) => postgres.apply_linked_ends().await,
            None => Ok(false),
        }
    }

    /// Vacuums the tables if jobs have left many dead rows in them.
    pub(crate) async fn vacuum(&self) -> Result<()> {
        match self.postgres() {
            Some(postgres) => postgres.vacuum().await,
            None => Ok(()),
        }
    }
}
