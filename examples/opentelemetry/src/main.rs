//! Traces go on from where a job is enqueued to the attempt at it, by OpenTelemetry.
//!
//! `cargo run --manifest-path examples/opentelemetry/Cargo.toml` prints the spans of a signup, of the welcome that it
//! enqueues and of the tips that the welcome enqueues, all of one trace. For a real program, replace the exporter in
//! memory by one of your choice, and `Memory` by a `Database`.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use reveille::enqueue::Enqueuer;
use reveille::{handler::Propagation, job::TraceContext};
use reveille::{driver::Memory, Job, State, Worker};
use serde::{Deserialize, Serialize};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;

/// Carries OpenTelemetry's current context along with jobs.
fn propagation() -> Propagation {
    let current = || {
        let mut headers = HashMap::new();
        TraceContextPropagator::new().inject_context(&Span::current().context(), &mut headers);
        let state = headers.get("tracestate").map(String::as_str);
        TraceContext::parse(headers.get("traceparent")?, state).ok()
    };
    Propagation::new(current).follow(|span, trace| {
        let mut headers = HashMap::from([("traceparent".to_owned(), trace.traceparent().to_owned())]);
        headers.extend(trace.tracestate().map(|state| ("tracestate".to_owned(), state.to_owned())));
        // This fails if a filter has disabled the span; then it needs no parent.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&headers));
    })
}

#[derive(Serialize, Deserialize)]
struct SendWelcome {
    user_id: i64,
}

impl Job for SendWelcome {
    const KIND: &'static str = "send_welcome";
}

#[derive(Serialize, Deserialize)]
struct SendTips {
    user_id: i64,
}

impl Job for SendTips {
    const KIND: &'static str = "send_tips";
}

#[tracing::instrument(skip_all)]
async fn send_welcome(job: SendWelcome, State(database): State<Memory>, enqueuer: Enqueuer) -> reveille::Result<()> {
    enqueuer.enqueue(&database, &SendTips { user_id: job.user_id }).await?;
    Ok(())
}

#[tracing::instrument(skip_all)]
async fn send_tips(_: SendTips) {}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;

    let database = Memory::new();
    let builder = Worker::builder(database.clone()).state(database.clone()).middleware(propagation());
    let worker = builder.handle(send_welcome).handle(send_tips).build()?;
    let enqueuer = worker.enqueuer();
    async { enqueuer.enqueue(&database, &SendWelcome { user_id: 7 }).await }
        .instrument(tracing::info_span!("sign_up"))
        .await?;
    worker.run_until_drained().await?;

    let spans = exporter.get_finished_spans()?;
    for span in &spans {
        let (trace, id) = (span.span_context.trace_id(), span.span_context.span_id());
        println!("{trace} {id} under {}: {}", span.parent_span_id, span.name);
    }
    assert_eq!(spans.len(), 5);
    assert!(spans.iter().all(|span| span.span_context.trace_id() == spans[0].span_context.trace_id()), "one trace");
    Ok(())
}
