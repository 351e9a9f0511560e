// An argument that a handler of batches cannot take.
use reveille::handler::{Batch, Gather};
use reveille::{Context, Job, Worker, driver::Memory};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct SendWelcome {
    user_id: i64,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
}

async fn send_welcomes(_: Batch<SendWelcome>, _: Context) {}

fn main() {
    let _ = Worker::builder(Memory::new()).handle_batch(Gather::up_to(9), send_welcomes);
}
