// A handler whose return type is no outcome.
use reveille::{Job, Worker, driver::Memory};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct SendWelcome {
    user_id: i64,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
}

async fn send_welcome(job: SendWelcome) -> Result<i64, String> {
    Ok(job.user_id)
}

fn main() {
    let _ = Worker::builder(Memory::new()).handle(send_welcome);
}
