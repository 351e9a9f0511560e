// A handler that is not async.
use reveille::{Job, Worker, driver::Memory};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct SendWelcome {
    user_id: i64,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
}

fn send_welcome(_: SendWelcome) -> Result<(), String> {
    Ok(())
}

fn main() {
    let _ = Worker::builder(Memory::new()).handle(send_welcome);
}
