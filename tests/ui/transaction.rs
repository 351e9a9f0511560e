// A client without a transaction, in which no job can be completed.
use reveille::Context;

async fn complete(context: Context, client: &std::net::TcpStream) {
    let _ = context.complete_in(client).await;
}

fn main() {
    let _ = complete;
}
