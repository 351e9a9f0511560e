// A client that a job cannot be enqueued on.
use reveille::{enqueue, job::NewJob};

fn send(client: &std::net::TcpStream, job: &NewJob) {
    let _ = enqueue(client, job);
}

fn main() {
    let _ = send;
}
