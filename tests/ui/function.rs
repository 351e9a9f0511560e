// A handler that is no function.
use reveille::{Worker, driver::Memory};

fn main() {
    let _ = Worker::builder(Memory::new()).handle("send_welcome");
}
