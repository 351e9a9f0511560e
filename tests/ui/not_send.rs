// A handler whose future cannot move to another thread.
use reveille::{Job, Worker, driver::Memory};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct SendWelcome {
    user_id: i64,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
}

async fn send_welcome(_: SendWelcome) {
    let counter = std::rc::Rc::new(7);
    std::future::ready(()).await;
    drop(counter);
}

fn main() {
    let _ = Worker::builder(Memory::new()).handle(send_welcome);
}
