//! Producers. Each job is noted in a table by the transaction that enqueues the job.

use std::time::{Duration, Instant};

use reveille::job::Payload;
use reveille::{Database, Job, enqueue::enqueue_all, job::NewJob};

use super::journal;
use super::linked::events::{Emitted, Emitter};
use super::linked::produce::{self, Earlier};
use super::queues::TestQueue;
use super::worker::{HandlerError, Task};

/// A job whose commit its producer has seen, and the time from which the job could start.
pub struct Committed {
    pub job: u64,
    pub ready: Duration,
}

/// What a producer has done.
#[derive(Default)]
pub struct Produced {
    pub committed: Vec<Committed>,
    pub emitted: Emitted,
}

/// One producer.
struct Producer {
    database: Database,
    queues: Vec<TestQueue>,
    /// The number of the last job of each queue.
    last: Vec<u64>,
    earlier: Earlier,
    emitter: Emitter,
}

/// Commits jobs at about `per_second`, in transactions of random size, until the deadline. A failed transaction is not
/// repeated; later transactions enqueue other jobs.
pub async fn produce(
    database: Database,
    number: u64,
    queues: Vec<TestQueue>,
    per_second: f64,
    until: Instant,
) -> Produced {
    let last: Vec<u64> = queues.iter().map(|queue| queue.first_number(number)).collect();
    let shares: Vec<usize> =
        queues.iter().enumerate().flat_map(|(place, queue)| std::iter::repeat_n(place, queue.share())).collect();
    let emitter = Emitter::new(database.clone());
    let mut producer = Producer { database, queues, last, earlier: Earlier::new(), emitter };
    let mut committed = Vec::new();
    let began = Instant::now();
    let mut sent = 0.0;
    while Instant::now() < until {
        let place = shares[fastrand::usize(0..shares.len())];
        let delay =
            if fastrand::u8(0..10) == 0 { Duration::from_millis(fastrand::u64(0..3000)) } else { Duration::ZERO };
        match tokio::time::timeout(Duration::from_secs(10), producer.enqueue(place, delay)).await {
            Ok(Ok(jobs)) => {
                // Linked jobs have no delay.
                let delay = if producer.queues[place].is_linked() { Duration::ZERO } else { delay };
                let ready = journal::now() + delay;
                sent += jobs.len() as f64;
                committed.extend(jobs.into_iter().map(|job| Committed { job, ready }));
            }
            // The outcome is unknown here. The table `torture.enqueued` shows if the transaction was committed.
            Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        let planned = Duration::from_secs_f64(sent / per_second);
        // After an outage, the producer makes up for the jobs of the last 2 s and gives up the jobs before.
        sent = sent.max(began.elapsed().saturating_sub(Duration::from_secs(2)).as_secs_f64() * per_second);
        tokio::time::sleep(planned.saturating_sub(began.elapsed())).await;
    }
    Produced { committed, emitted: producer.emitter.end().await }
}

impl Producer {
    /// Enqueues one or several jobs of a queue, and returns their numbers.
    async fn enqueue(&mut self, place: usize, delay: Duration) -> Result<Vec<u64>, HandlerError> {
        let (queue, last) = (self.queues[place], self.last[place]);
        if queue == TestQueue::Workflows {
            self.last[place] += produce::NUMBERS;
            return produce::enqueue_linked(&self.database, last + 1, &mut self.earlier).await;
        }
        let size = [1, 1, 1, 2, 5, 20][fastrand::usize(0..6)];
        self.last[place] += size;
        let jobs: Vec<u64> = (last + 1..=last + size).collect();
        if queue == TestQueue::Steps {
            let (emitted, open) = produce::enqueue_durable(&self.database, &jobs).await?;
            self.emitter.note(emitted);
            open.into_iter().for_each(|job| self.emitter.emit_later(job));
        } else {
            commit(&self.database, queue, &jobs, delay).await?;
        }
        Ok(jobs)
    }
}

async fn commit(database: &Database, queue: TestQueue, jobs: &[u64], delay: Duration) -> Result<(), HandlerError> {
    let mut client = database.client().await?;
    let transaction = client.transaction().await?;
    let numbers: Vec<i64> = jobs.iter().map(|&job| job as i64).collect();
    transaction.execute("insert into torture.enqueued select * from unnest($1::bigint[])", &[&numbers]).await?;
    let new = |&job| {
        let key = TestQueue::key(job);
        let mut job = NewJob::new(Task::KIND, Payload::encode(&Task(job))?).queue(queue.name()).delay(delay);
        job.key = key;
        Ok(job)
    };
    enqueue_all(&transaction, &jobs.iter().map(new).collect::<reveille::Result<Vec<_>>>()?).await?;
    Ok(transaction.commit().await?)
}
