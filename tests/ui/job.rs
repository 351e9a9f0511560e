// A first argument that is no job.
use reveille::{Attempt, Worker, driver::Memory};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct SendWelcome {
    user_id: i64,
}

async fn send_welcome(_: SendWelcome, _: Attempt) {}

fn main() {
    let _ = Worker::builder(Memory::new()).handle(send_welcome);
}
