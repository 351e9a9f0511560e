//! The workflows of the lively mix: one is always running, one is stalled, and one job waits for an event.

use std::time::Duration;

use reveille::enqueue::{Workflow, enqueue_all};
use reveille::job::{NewJob, Payload};
use reveille::{Context, Database};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How often a workflow is enqueued. Its longest path takes about twice as long.
const EVERY: Duration = Duration::from_secs(10);
/// The kind of a job whose only attempt dies.
pub const DOOMED: &str = "parse_prices";
/// The kind of a job that charges, and then waits for an event.
pub const CHECKOUT: &str = "checkout";

/// Enqueues the workflow that stalls and the job that waits.
pub async fn set_up(database: &Database) -> reveille::Result<()> {
    let mut prices = Workflow::new("import prices").unique_key("2026-11").input(&json!({ "file": "prices.csv" }));
    let download = prices.add("download", &job("download_file")?);
    let parse = prices.add("parse", &job(DOOMED)?.max_attempts(1)).after(&download);
    prices.add("publish", &job("publish_prices")?).after(&parse);
    prices.add("tell the owner", &job("send_alert")?).after_dead(&parse);
    prices.enqueue(database).await?;
    enqueue_all(database, [&job(CHECKOUT)?.queue("billing").key("customer-7")]).await?;
    Ok(())
}

/// Enqueues a workflow now and then, until `stop`.
pub async fn produce(database: &Database, stop: &CancellationToken) -> reveille::Result<()> {
    let mut number = 0;
    loop {
        number += 1;
        figures(number)?.enqueue(database).await?;
        if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return Ok(());
        }
    }
}

/// Extracts from three sources, joins, and hands the figures out. If the join dies, the extracts are undone.
fn figures(number: u64) -> reveille::Result<Workflow> {
    let mut figures = Workflow::new("figures of the day").input(&json!({ "run": number }));
    let extract = job("extract_rows")?;
    let [orders, customers, stock] =
        ["orders", "customers", "stock"].map(|source| figures.add(format!("extract {source}"), &extract));
    let join = figures.add("join", &job("join_rows")?).after([&orders, &customers, &stock]);
    figures.add("undo", &job("remove_rows")?).after_dead(&join);
    let report = figures.add("report", &job("build_report")?.queue("reports")).after([&join, &stock]);
    let export = figures.add("export", &job("join_rows")?).after(&join);
    figures.add("mail", &job("send_report")?.queue("mail")).after_any_end([&report, &export]);
    Ok(figures)
}

fn job(kind: &str) -> reveille::Result<NewJob> {
    Ok(NewJob::new(kind, Payload::encode(&json!({}))?))
}

/// Charges a card in a durable step, and waits for the customer's signature.
pub async fn check_out(context: &Context) -> reveille::Result<()> {
    let charged = async |key: String| Ok::<_, reveille::Error>(json!({ "charge": "ch_4711", "key": key }));
    context.step("charge", charged).await?;
    context.wait_for::<Value>("signed:4711", Duration::from_secs(30 * 86_400)).await?;
    Ok(())
}
