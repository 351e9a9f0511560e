//! Only the worker, as a process of its own.

use reveille_axum_example::{Failure, jobs, open, stop_signal};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let database = open(std::env::var("DATABASE_URL")?).await?;
    jobs::worker(&database)?.run_until(stop_signal()?).await?;
    Ok(())
}
