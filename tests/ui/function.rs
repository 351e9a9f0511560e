// A thing that is no function at all.
use reveille::{Worker, driver::Memory};

fn main() {
    let _ = Worker::builder(Memory::new()).handle("send_welcome");
}
