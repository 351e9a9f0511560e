// Calls with a value that is no job, and with a value on which no job can be enqueued.
use reveille::{driver::Memory, enqueue};

fn main() {
    let _ = enqueue(&Memory::new(), &"send_welcome");
    let _ = enqueue(Memory::new(), &reveille::job::NewJob::new("k", reveille::job::Payload::parse("1").unwrap()));
}
