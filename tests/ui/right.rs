// Correct versions of the wrong handlers in the other files.
use reveille::handler::{Batch, Gather};
use reveille::job::Completed;
use reveille::{Attempt, Context, Job, Outcome, State, Worker, driver::Memory, enqueue};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct SendWelcome {
    user_id: i64,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
}

#[derive(Serialize, Deserialize)]
struct Count(String);

impl Job for Count {
    const KIND: &'static str = "count";
}

async fn send_welcome(job: SendWelcome, State(by): State<i64>, _: Attempt, _: Context) -> Result<Outcome, String> {
    if job.user_id > by { Ok(Outcome::Cancel) } else { Err("no such user".into()) }
}

async fn count(batch: Batch<Count>) -> Vec<Completed<usize>> {
    batch.iter().map(|item| Completed(item.job.0.len())).collect()
}

fn main() {
    let memory = Memory::new();
    let _ = enqueue(&memory, &SendWelcome { user_id: 7 }).queue("mail").unique_key("k");
    let _ = Worker::builder(memory).state(7i64).handle(send_welcome).handle_batch(Gather::up_to(9), count);
}
