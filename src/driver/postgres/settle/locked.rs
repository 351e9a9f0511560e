//! Settling while other sessions have locked some of the rows.
//!
//! A settling statement sets its own `lock_timeout`, and waits at most 200 ms for a lock. After a statement has given
//! up on a lock, two statements in one transaction settle the jobs. First `sql/lock_reserved.sql` locks the rows that
//! no other session has locked. Then the usual settling statement settles the jobs of these rows. The remaining jobs
//! are reported as locked, which differs from lost.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::by_id::{Counting, SettleStatement, run};
use super::durability::SETTLE;
use super::fence::Fence;
use crate::driver::postgres::session::Params;
use crate::driver::postgres::{ANSWER_WITHIN, Postgres};
use crate::driver::{Settled, Settlement};
use crate::error::Result;

/// The fates of the settlements whose reservations still stood, by the ids of the jobs.
pub(crate) type Answers = HashMap<i64, Settled>;

/// Describes these jobs as settled.
pub(crate) fn counted(ids: Vec<i64>) -> Answers {
    ids.into_iter().map(|id| (id, Settled::Counted)).collect()
}

/// Stands for the session whose commit holds the lock that all commits that notify take.
const HANGING_COMMIT: &str = "a commit that hangs; see `reveille doctor`";

/// The time for which further locks are expected after a settlement has met a lock. It is longer than the pause between
/// two tries to settle a locked job.
const EXPECTED_FOR: Duration = Duration::from_secs(3);

/// The time at which a settlement last met a lock. For 3 s after that, each settlement first locks those of its rows
/// that no other session has locked, and leaves the others for later. Without this step, a settlement would wait 200 ms
/// for each newly locked job.
#[derive(Default)]
pub(crate) struct Locks(Mutex<Option<Instant>>);

impl Locks {
    pub(crate) fn met(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn are_expected(&self) -> bool {
        let met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.is_some_and(|met| met.elapsed() < EXPECTED_FOR)
    }
}

/// Settles the jobs whose rows no other session has locked.
pub(crate) async fn settle(
    driver: &Postgres,
    statement: SettleStatement,
    settlements: &[&Settlement],
) -> Result<Answers> {
    let transaction = driver.sessions.begin(ANSWER_WITHIN, SETTLE).await?;
    let fence = Fence::of(settlements);
    let lock = (&*driver.statements.lock_reserved, &fence.before(&[])[..]);
    let standing = transaction.query(ANSWER_WITHIN, SETTLE, lock).await?;
    let standing: HashMap<i64, bool> = standing.iter().map(|row| (row.get("id"), row.get("taken"))).collect();
    let taken: Vec<&Settlement> = settlements
        .iter()
        .copied()
        .filter(|settlement| standing.get(&settlement.reservation.id) == Some(&true))
        .collect();
    let mut answers = Answers::new();
    if !taken.is_empty() {
        answers = counted(run(driver, statement, &taken, Counting::InTransaction(&transaction)).await?);
    }
    match transaction.commit(ANSWER_WITHIN, SETTLE).await {
        // A worker that has looked for ends before this commit has not seen these.
        Ok(()) => driver.linked_ends.notify_one(),
        // Some of the ends are notified, and the commit of another session that notifies hangs.
        Err(error) if error.is_locked() => {
            driver.locks.met();
            answers.values_mut().for_each(|settled| *settled = Settled::Locked(HANGING_COMMIT.into()));
        }
        Err(error) => return Err(error),
    }
    let locked: Vec<i64> = standing.into_iter().filter_map(|(id, taken)| (!taken).then_some(id)).collect();
    if !locked.is_empty() {
        driver.locks.met();
        let holders = holders(driver, &locked).await;
        answers.extend(locked.into_iter().map(|id| {
            let by = holders.get(&id).cloned().unwrap_or_else(|| "another session".into());
            (id, Settled::Locked(by))
        }));
    }
    Ok(answers)
}

/// Returns descriptions of the sessions that have locked these jobs, as far as this role can see the sessions.
async fn holders(driver: &Postgres, ids: &[i64]) -> HashMap<i64, String> {
    let params: &Params<'_> = &[(&ids, Type::INT8_ARRAY)];
    let rows = driver.query("find the sessions that lock jobs", &driver.statements.lock_holders, params).await;
    let holder = |row: &Row| {
        let application: Option<String> = row.get("application_name");
        let session = |pid: i32| {
            format!("pid {pid} ({})", application.filter(|name| !name.is_empty()).as_deref().unwrap_or("no name"))
        };
        let prepared = |gid: String| format!("the prepared transaction {gid:?}");
        let by =
            row.get::<_, Option<i32>>("pid").map(session).or_else(|| row.get::<_, Option<String>>("gid").map(prepared));
        by.map(|by| (row.get("id"), by))
    };
    rows.map(|rows| rows.iter().filter_map(holder).collect()).unwrap_or_default()
}
