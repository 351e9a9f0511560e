// An argument that is no extractor.
use reveille::{Job, Worker, driver::Memory};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct SendWelcome {
    user_id: i64,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
}

async fn send_welcome(_: SendWelcome, _: reveille::Attempt, _: String) {}

fn main() {
    let _ = Worker::builder(Memory::new()).handle(send_welcome);
}
