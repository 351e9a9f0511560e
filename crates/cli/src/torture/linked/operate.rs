//! Operators: they cancel, revive, retry and purge linked jobs at random. At the end, they repair what is held up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deadpool_postgres::{Client, Object};
use reveille::Database;
use serde_json::Value;

use super::KINDS;
use crate::torture::lock;
use crate::torture::report::TortureFigures;

/// The longest pause between two acts.
const LONGEST_PAUSE: Duration = Duration::from_millis(600);
/// The longest time for an act. A fault may stop the server, or lock the job.
const ACT_WITHIN: Duration = Duration::from_secs(10);

type ActError = Box<dyn std::error::Error + Send + Sync>;

/// What an operator does to one job or workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    CancelJob,
    CancelBlocked,
    CancelWorkflow,
    RetryWorkflow,
    /// Makes a waiting job due at once, such as one that sleeps.
    Hasten,
    Revive,
    Purge,
}

/// The acts, the likely ones several times.
const ACTS: [Act; 11] = [
    Act::CancelJob,
    Act::CancelJob,
    Act::CancelBlocked,
    Act::CancelBlocked,
    Act::CancelWorkflow,
    Act::RetryWorkflow,
    Act::RetryWorkflow,
    Act::RetryWorkflow,
    Act::Hasten,
    Act::Revive,
    Act::Purge,
];

/// The number of acts of each sort that changed something.
#[derive(Default)]
pub struct Acts(Mutex<BTreeMap<&'static str, u64>>);

impl Acts {
    /// Adds the figures of the acts.
    pub fn report(&self, figures: &mut TortureFigures) {
        for act in ACTS {
            let count = lock(&self.0).get(act.name()).copied().unwrap_or_default();
            figures.insert(act.name().into(), Value::from(count));
        }
    }
}

impl Act {
    /// The name of the act's figure.
    fn name(self) -> &'static str {
        match self {
            Act::CancelJob | Act::CancelBlocked => "jobs_cancelled",
            Act::CancelWorkflow => "workflows_cancelled",
            Act::RetryWorkflow => "workflows_retried",
            Act::Hasten => "jobs_hastened",
            Act::Revive => "jobs_revived",
            Act::Purge => "jobs_purged",
        }
    }

    /// The query that chooses a job or a workflow.
    fn choice(self) -> &'static str {
        match self {
            Act::CancelJob => "select id from reveille.jobs where kind = any ($1) order by random() limit 1",
            Act::Hasten => {
                "select id from reveille.jobs where kind = any ($1) and reserved_at is null and available_at > now()
                order by random() limit 1"
            }
            Act::CancelBlocked => {
                "select id from reveille.blocked_jobs where kind = any ($1) order by random() limit 1"
            }
            Act::CancelWorkflow => {
                "select id from reveille.workflows where finished_at is null and $1::text[] is not null
                order by random() limit 1"
            }
            Act::RetryWorkflow => {
                "select id from reveille.workflows where dead > 0 and $1::text[] is not null
                order by state = 'stalled' desc, random() limit 1"
            }
            Act::Revive | Act::Purge => {
                "select id from reveille.dead_jobs where kind = any ($1) order by random() limit 1"
            }
        }
    }
}

/// Acts at random until the task is aborted.
pub async fn operate(database: Database, acts: Arc<Acts>) {
    loop {
        tokio::time::sleep(LONGEST_PAUSE.mul_f64(fastrand::f64())).await;
        let act = ACTS[fastrand::usize(0..ACTS.len())];
        let Ok(Ok(mut client)) = tokio::time::timeout(ACT_WITHIN, database.client()).await else { continue };
        match tokio::time::timeout(ACT_WITHIN, perform(&database, &mut client, act)).await {
            Ok(Ok(true)) => *lock(&acts.0).entry(act.name()).or_default() += 1,
            // There was nothing to change, or the server is down.
            Ok(_) => {}
            // The connection may never answer again.
            Err(_) => drop(Object::take(client)),
        }
    }
}

/// Returns true if something was changed.
async fn perform(database: &Database, client: &mut Client, act: Act) -> Result<bool, ActError> {
    let Some(chosen) = client.query_opt(act.choice(), &[&&KINDS[..]]).await? else { return Ok(false) };
    let id: i64 = chosen.get(0);
    if act == Act::Purge {
        let note = "insert into torture.purged
            select id, (payload #>> '{job}')::bigint from reveille.dead_jobs where id = $1";
        client.execute(note, &[&id]).await?;
        return Ok(database.admin().purge_dead_job(id).await?);
    }
    let transaction = client.transaction().await?;
    transaction.batch_execute("set local lock_timeout = '2s'").await?;
    let forced = fastrand::u8(0..3) == 0;
    let changed = match act {
        Act::CancelJob | Act::CancelBlocked => {
            let cancel = "select reveille.cancel($1) in ('cancelled', 'requested')";
            transaction.query_one(cancel, &[&id]).await?.get(0)
        }
        Act::CancelWorkflow => {
            let cancel = "select reveille.cancel_workflow($1) = 'cancelling'";
            transaction.query_one(cancel, &[&id]).await?.get(0)
        }
        Act::Hasten => transaction.query_one("select reveille.retry($1) = 'due'", &[&id]).await?.get(0),
        _ => transaction.execute(revival(act), &[&id, &forced]).await? > 0,
    };
    transaction.commit().await?;
    Ok(changed)
}

/// The statement that revives dead jobs and notes which.
fn revival(act: Act) -> &'static str {
    match act {
        Act::RetryWorkflow => {
            "insert into torture.revived
            select job from reveille.retry_workflow($1, $2) where answer = 'revived'"
        }
        _ => "insert into torture.revived select $1::bigint where reveille.retry($1, $2) = 'revived'",
    }
}

/// Seals the workflows that their producers have not sealed.
pub async fn seal_all(database: &Database) -> Result<(), ActError> {
    let seal = "select reveille.seal_workflow(id) from reveille.workflows where not sealed and finished_at is null";
    database.client().await?.query(seal, &[]).await?;
    Ok(())
}

/// Revives each dead job that holds up others, and lets the doomed jobs live. Returns false if no job holds up others.
pub async fn repair(database: &Database) -> Result<bool, ActError> {
    let mut client = database.client().await?;
    let transaction = client.transaction().await?;
    transaction.execute("delete from torture.doomed", &[]).await?;
    let revive = "insert into torture.revived
        select held.id
        from (
            select distinct dependencies.on_job as id
            from reveille.blocked_jobs
            join reveille.dependencies on dependencies.waiter = blocked_jobs.id
            join reveille.dead_jobs on dead_jobs.id = dependencies.on_job
        ) as held
        where reveille.retry(held.id, true) = 'revived'";
    let revived = transaction.execute(revive, &[]).await?;
    transaction.commit().await?;
    Ok(revived > 0)
}
