//! Enqueues linked jobs. Each job is noted in a table by the transaction that enqueues it.

use std::time::Duration;

use deadpool_postgres::Transaction;
use reveille::enqueue::{Members, Workflow, emit};
use reveille::job::{FiresOn, NewJob};
use reveille::{Database, enqueue};

use super::{DurableTask, LinkedTask, event_of};
use crate::torture::worker::{HandlerError, IDEMPOTENT};

/// The numbers that are set aside for the jobs of one call of [`enqueue_linked`]. A batch has at most 40 jobs.
pub const NUMBERS: u64 = 64;
/// The queue of all jobs of this file, durable ones included.
const QUEUE: &str = "workflows";
/// The number of the last jobs outside of workflows for which a new job may wait.
const EARLIER: usize = 20;

/// The jobs outside of workflows that a producer has enqueued last: their ids and numbers.
pub type Earlier = Vec<(i64, i64)>;

/// New jobs with their numbers.
struct NewJobs {
    next: u64,
    /// The numbers that were given out since the last [`NewJobs::note`].
    fresh: Vec<i64>,
    doomed: Vec<i64>,
    committed: Vec<u64>,
}

/// Enqueues a random workflow, or jobs that wait for others, with numbers from `first` on. Returns the numbers of the
/// jobs whose commit was seen.
pub async fn enqueue_linked(database: &Database, first: u64, earlier: &mut Earlier) -> Result<Vec<u64>, HandlerError> {
    let mut new = NewJobs { next: first, fresh: Vec::new(), doomed: Vec::new(), committed: Vec::new() };
    match fastrand::u8(0..10) {
        0..4 => commit(database, diamond(&mut new)?, &mut new).await?,
        4 => commit(database, batch(&mut new)?, &mut new).await?,
        5 => fill(database, &mut new).await?,
        6..8 => commit(database, finding(&mut new)?, &mut new).await?,
        _ => wait_for_jobs(database, &mut new, earlier).await?,
    }
    Ok(new.committed)
}

impl NewJobs {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.fresh.push((self.next - 1).cast_signed());
        self.next - 1
    }

    /// A job whose attempts fail at random. One in four is settled by its worker, and has a result.
    fn usual(&mut self) -> reveille::Result<NewJob> {
        let job = self.number();
        NewJob::of(&LinkedTask { job, once: !job.is_multiple_of(IDEMPOTENT), adds: 0 })
    }

    /// A job that dies, until it is no longer in `torture.doomed`.
    fn doomed(&mut self) -> reveille::Result<NewJob> {
        self.doomed.push(self.next.cast_signed());
        Ok(self.usual()?.max_attempts(fastrand::u32(1..3)))
    }

    /// One in ten jobs is doomed, one has steps and a sleep, and one dies at its first failure.
    fn any(&mut self) -> reveille::Result<NewJob> {
        match fastrand::u8(0..10) {
            0 => self.doomed(),
            1 => NewJob::of(&DurableTask::new(self.number(), None)).map(|job| job.queue(QUEUE)),
            2 => self.usual().map(|job| job.max_attempts(1)),
            _ => self.usual(),
        }
    }

    /// A job whose effect is written exactly once.
    fn callback(&mut self) -> LinkedTask {
        LinkedTask { job: self.number(), once: true, adds: 0 }
    }

    /// Notes the jobs that were made since the last call.
    async fn note(&mut self, transaction: &Transaction<'_>) -> Result<(), HandlerError> {
        let note = "insert into torture.linked select unnest($1::bigint[])";
        transaction.execute(note, &[&self.fresh]).await?;
        transaction.execute("insert into torture.doomed select unnest($1::bigint[])", &[&self.doomed]).await?;
        Ok(())
    }

    /// Notes that the transaction of these jobs was committed.
    fn are_committed(&mut self) {
        self.committed.extend(self.fresh.drain(..).map(i64::cast_unsigned));
        self.doomed.clear();
    }

    /// Forgets the jobs of a transaction that has failed.
    fn have_failed(&mut self) {
        self.fresh.clear();
        self.doomed.clear();
    }
}

async fn commit(database: &Database, workflow: Workflow, new: &mut NewJobs) -> Result<(), HandlerError> {
    let mut client = database.client().await?;
    let transaction = client.transaction().await?;
    new.note(&transaction).await?;
    workflow.enqueue(&transaction).await?;
    transaction.commit().await?;
    new.are_committed();
    Ok(())
}

/// Two jobs wait for the first, and one for both. One undoes, and others report.
fn diamond(new: &mut NewJobs) -> reveille::Result<Workflow> {
    let mut workflow = Workflow::new("diamond");
    let split = workflow.add("split", &new.any()?);
    let left = workflow.add("left", &new.any()?).after(&split);
    let right = workflow.add("right", &new.any()?).after(&split);
    let joined = workflow.add("join", &new.any()?).after([&left, &right]);
    if fastrand::bool() {
        joined.clone().cancel_if_dead();
    }
    let undo = workflow.add("undo", &new.callback()).after_dead(&right);
    workflow.add("report", &new.callback()).after_any_end([&joined, &undo]);
    workflow.add("first report", &new.callback()).after_any_end([&left, &right]).on_first();
    workflow.add("clean up", &new.callback()).after_cancelled(&joined);
    Ok(workflow)
}

/// Jobs that do not wait for each other, and a callback of each sort.
fn batch(new: &mut NewJobs) -> reveille::Result<Workflow> {
    let jobs = (0..fastrand::usize(10..=40)).map(|_| new.any()).collect::<reveille::Result<Vec<_>>>()?;
    let batch = Workflow::batch("batch", jobs);
    Ok(batch.on_complete(&new.callback()).on_success(&new.callback()).on_dead(&new.callback()))
}

/// A job whose handler adds jobs, and a report that waits for all of them.
fn finding(new: &mut NewJobs) -> reveille::Result<Workflow> {
    let mut workflow = Workflow::new("finding");
    let find = LinkedTask { adds: fastrand::u64(2..=6), ..new.callback() };
    // The handler notes the jobs that it adds.
    new.next += find.adds;
    let find = workflow.add("find", &find);
    workflow.add("report", &new.callback()).after(&find);
    Ok(workflow)
}

/// Opens a batch, adds jobs in several transactions, and seals the batch. A transaction that fails is not repeated, but
/// the seal is. [`seal_all`](super::seal_all) seals what this leaves.
async fn fill(database: &Database, new: &mut NewJobs) -> Result<(), HandlerError> {
    let jobs = (0..fastrand::usize(0..3)).map(|_| new.any()).collect::<reveille::Result<Vec<_>>>()?;
    let filled = Workflow::batch("filled", jobs).on_complete(&new.callback()).on_dead(&new.callback());
    let workflow = {
        let mut client = database.client().await?;
        let transaction = client.transaction().await?;
        new.note(&transaction).await?;
        let workflow = filled.open(&transaction).await?;
        transaction.commit().await?;
        workflow
    };
    new.are_committed();
    for part in 0..fastrand::u8(1..4) {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..300))).await;
        let members = Members::new();
        for place in 0..fastrand::u8(1..6) {
            let member = members.add(format!("{part} {place}"), &new.any()?);
            member.before_any_end("on complete").before_dead("on dead");
        }
        let added = async {
            let mut client = database.client().await?;
            let transaction = client.transaction().await?;
            new.note(&transaction).await?;
            workflow.add(&transaction, members).await?;
            Ok::<_, HandlerError>(transaction.commit().await?)
        };
        match added.await {
            Ok(()) => new.are_committed(),
            Err(_) => new.have_failed(),
        }
    }
    while workflow.seal(database).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Enqueues up to three jobs outside of workflows. All but the first wait for some that were enqueued before, in this
/// transaction or an earlier one.
async fn wait_for_jobs(database: &Database, new: &mut NewJobs, earlier: &mut Earlier) -> Result<(), HandlerError> {
    let mut client = database.client().await?;
    let transaction = client.transaction().await?;
    let mut known = earlier.clone();
    for place in 0..fastrand::u8(1..=3) {
        let job = new.any()?;
        let number = (new.next - 1).cast_signed();
        let enqueuing = enqueue(&transaction, &job);
        let id = if place == 0 && fastrand::bool() || known.is_empty() {
            enqueuing.await?.id
        } else {
            fastrand::shuffle(&mut known);
            let awaited = &known[..fastrand::usize(1..=known.len().min(3))];
            let fires_on = [FiresOn::Completed, FiresOn::Completed, FiresOn::Any, FiresOn::Dead][fastrand::usize(0..4)];
            let needs_one = fastrand::u8(0..4) == 0;
            let mut enqueuing = enqueuing.after_outcome(fires_on, awaited.iter().map(|(id, _)| *id));
            if fastrand::bool() {
                enqueuing = enqueuing.cancel_if_dead();
            }
            if needs_one {
                enqueuing = enqueuing.on_first();
            }
            let link = "insert into torture.links select $1::bigint, unnest($2::bigint[]), $3::text, $4::boolean";
            let numbers: Vec<i64> = awaited.iter().map(|(_, number)| *number).collect();
            transaction.execute(link, &[&number, &numbers, &fires_on.name(), &needs_one]).await?;
            enqueuing.await?.id
        };
        known.push((id, number));
    }
    new.note(&transaction).await?;
    transaction.commit().await?;
    new.are_committed();
    *earlier = known.split_off(known.len().saturating_sub(EARLIER));
    Ok(())
}

/// Enqueues durable jobs with the numbers from `first` on. A third of them has an event that is emitted before, and
/// another third waits for an event. Returns the jobs whose event was emitted, and the jobs whose event is open.
pub async fn enqueue_durable(database: &Database, jobs: &[u64]) -> Result<(Vec<u64>, Vec<u64>), HandlerError> {
    let mut client = database.client().await?;
    let transaction = client.transaction().await?;
    let numbers: Vec<i64> = jobs.iter().map(|job| job.cast_signed()).collect();
    transaction.execute("insert into torture.linked select unnest($1::bigint[])", &[&numbers]).await?;
    let (mut emitted, mut open) = (Vec::new(), Vec::new());
    for &job in jobs {
        let within = fastrand::u64(1000..4000);
        let task = match fastrand::u8(0..3) {
            0 => DurableTask::new(job, None),
            1 => {
                emit(&transaction, event_of(job), &fastrand::u32(..)).await?;
                emitted.push(job);
                DurableTask::new(job, Some(within))
            }
            _ => {
                open.push(job);
                DurableTask::new(job, Some(within))
            }
        };
        enqueue(&transaction, &task).max_attempts([3, 20][fastrand::usize(0..2)]).await?;
    }
    transaction.commit().await?;
    Ok((emitted, open))
}
