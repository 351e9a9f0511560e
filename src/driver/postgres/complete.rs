//! Completing a job in the handler's own transaction.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::Postgres;
use super::session::Params;
use crate::database::complete_in::sealed::RunIn;
use crate::error::Result;
use crate::job::Reservation;

impl Postgres {
    /// Completes a job in the caller's transaction, if its reservation still stands. Returns the id of the transaction;
    /// `None` if the reservation does not stand.
    pub(crate) async fn complete_in(
        &self,
        transaction: &mut dyn RunIn,
        reservation: &Reservation,
        ran: Duration,
    ) -> Result<Option<String>> {
        let Reservation { id, worker, attempt, reserved_at, .. } = reservation;
        let seconds = ran.as_secs_f64();
        let params: &Params<'_> = &[
            (id, Type::INT8),
            (worker, Type::INT8),
            (attempt, Type::INT4),
            (reserved_at, Type::TIMESTAMPTZ),
            (&seconds, Type::FLOAT8),
        ];
        transaction.text(&self.statements.complete, params).await
    }

    /// Returns the queues of the jobs that a program has completed under these reservations by the SQL function
    /// `reveille.complete_in`, by the id and the attempt of each job.
    pub(crate) async fn completed_in_sql(&self, reservations: &[Reservation]) -> Result<HashMap<(i64, i32), String>> {
        let ids: Vec<i64> = reservations.iter().map(|reservation| reservation.id).collect();
        let workers: Vec<i64> = reservations.iter().map(|reservation| reservation.worker).collect();
        let attempts: Vec<i32> = reservations.iter().map(|reservation| reservation.attempt).collect();
        let params: &Params<'_> =
            &[(&ids, Type::INT8_ARRAY), (&workers, Type::INT8_ARRAY), (&attempts, Type::INT4_ARRAY)];
        let rows = self.query("find completed jobs", &self.statements.completed_in_sql, params).await?;
        Ok(rows.iter().map(|row| ((row.get("id"), row.get("attempt")), row.get("queue"))).collect())
    }

    /// Checks if a transaction of `complete_in` has completed its job. Returns `None` while the transaction is open,
    /// then true if the reservation is gone and false if it stands.
    pub(crate) async fn is_recorded(&self, transaction: &str, reservation: &Reservation) -> Result<Option<bool>> {
        let Reservation { id, worker, attempt, reserved_at, .. } = reservation;
        let params: &Params<'_> = &[
            (&transaction, Type::TEXT),
            (id, Type::INT8),
            (worker, Type::INT8),
            (attempt, Type::INT4),
            (reserved_at, Type::TIMESTAMPTZ),
        ];
        let rows = self.query("find a completion", &self.statements.is_recorded, params).await?;
        Ok(rows.first().and_then(|row| row.get("recorded")))
    }
}
