//! Doing the upkeep of workers by hand.

use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio_postgres::types::Type;

use super::runs::NewRun;
use super::{ActionState, Admin};
use crate::driver::Postgres;
use crate::error::Result;

/// The time between two signs of life of recorded upkeep.
const SEEN_EVERY: Duration = Duration::from_secs(10);

impl Admin {
    /// Does all the upkeep of workers now, except vacuum.
    ///
    /// Returns the number of daily partitions of the history that were emptied, or `None` if a worker is already doing
    /// the upkeep.
    ///
    /// # Errors
    /// The server's error.
    pub async fn prune(&self) -> Result<Option<u32>> {
        let run = NewRun { action: "prune", filter: None, edit: None, matching: None, highest_id: None };
        let Some(run) = self.begin_run("do the upkeep", run).await? else { return self.do_upkeep().await };
        let pruned = tokio::select! {
            pruned = self.do_upkeep() => pruned,
            error = self.keep_seen(run) => Err(error),
        };
        match &pruned {
            Ok(emptied) => {
                let answer = if emptied.is_some() { "pruned" } else { "busy" };
                let detail = json!({"answer": answer, "emptied_days": emptied});
                self.end_run(run, ActionState::Done, None, detail).await?;
            }
            Err(error) => {
                // If this cannot be written either, the action is shown as interrupted.
                let _ = self.end_run(run, ActionState::Failed, Some(error), json!({})).await;
            }
        }
        pruned
    }

    async fn do_upkeep(&self) -> Result<Option<u32>> {
        let rows = self.query("read the clock", "select clock_timestamp() as now", &[]).await?;
        let now: Option<SystemTime> = rows.first().map(|row| row.get("now"));
        Ok(Postgres::new(self.database.clone())?.do_all_chores(now).await?.emptied)
    }

    /// Notes signs of life of a run. Returns only if one cannot be written.
    async fn keep_seen(&self, run: i64) -> crate::Error {
        loop {
            tokio::time::sleep(SEEN_EVERY).await;
            let sql = include_str!("../../sql/see_run.sql");
            if let Err(error) = self.query("do the upkeep", sql, &[(&run, Type::INT8)]).await {
                return error;
            }
        }
    }
}
