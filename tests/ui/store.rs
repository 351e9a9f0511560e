// A client on which no job can be enqueued.
use reveille::{enqueue, job::NewJob};

fn send(client: &std::net::TcpStream, job: &NewJob) {
    let _ = enqueue(client, job);
}

fn main() {
    let _ = send;
}
