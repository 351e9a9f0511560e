//! A worker on a store outside Reveille.
//!
//! `cargo run --manifest-path examples/driver/Cargo.toml` enqueues three jobs on the store and runs them.

use std::sync::Arc;
use std::time::Duration;

use reveille::job::JobState;
use reveille::{Job, State, Worker, enqueue};
use reveille_driver_example::MapStore;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

#[derive(Serialize, Deserialize)]
struct SendWelcome {
    user_id: i64,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
}

async fn send_welcome(job: SendWelcome, State(sent): State<Arc<Semaphore>>) {
    println!("welcome, user {}", job.user_id);
    sent.add_permits(1);
}

#[tokio::main]
async fn main() -> reveille::Result<()> {
    let (store, sent) = (Arc::new(MapStore::default()), Arc::new(Semaphore::new(0)));
    let builder = Worker::builder(Arc::clone(&store)).poll_interval(Duration::from_millis(20)).state(Arc::clone(&sent));
    let worker = builder.handle(send_welcome).build()?;

    let first = enqueue(&*store, &SendWelcome { user_id: 1 }).await?;
    enqueue(&*store, &SendWelcome { user_id: 2 }).delay(Duration::from_millis(100)).await?;
    enqueue(&*store, &SendWelcome { user_id: 3 }).await?;
    worker.run_until(sent.acquire_many(3)).await?;

    let state = store.row(first.id).map(|row| row.state);
    assert_eq!(state, Some(JobState::Completed));
    Ok(())
}
