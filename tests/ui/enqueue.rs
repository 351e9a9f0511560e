// A thing that is neither a job nor something to enqueue on.
use reveille::{driver::Memory, enqueue};

fn main() {
    let _ = enqueue(&Memory::new(), &"send_welcome");
    let _ = enqueue(Memory::new(), &reveille::job::NewJob::new("k", reveille::job::Payload::parse("1").unwrap()));
}
