//! The trace context reaches the attempt from the enqueue. Spans and events have the names in
//! `docs/reference/events.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use reveille::enqueue::Enqueuer;
use reveille::job::Payload;
use reveille::{Context, Outcome, State, Worker, driver::Memory, enqueue, enqueue::enqueue_all};
use reveille::{handler::Propagation, job::TraceContext};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context as Layered, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::conformance::with;
use crate::harness::{Note, Reporter, database, eventually, note, reporting, start};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A span or an event with its fields. `span`: the span around an event, if there is one.
#[derive(Debug, Clone)]
pub struct Recorded {
    metadata: &'static Metadata<'static>,
    fields: BTreeMap<String, String>,
    span: Option<u64>,
}

/// Records this crate's spans and events on this thread.
#[derive(Clone, Default)]
pub struct EventLog(Arc<Mutex<Vec<Recorded>>>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
}

/// With only one subscriber, `tracing` lets one thread decide if a span or event is recorded: the first thread that
/// reaches it. That thread may run another test, without a subscriber. A second subscriber makes `tracing` ask each
/// thread.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

impl EventLog {
    pub fn start() -> (EventLog, DefaultGuard) {
        LazyLock::force(&SECOND);
        let events = EventLog::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(events.clone()));
        (events, guard)
    }

    fn recorded(&self) -> Vec<Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, recorded: Recorded) {
        if recorded.metadata.target().starts_with("reveille") {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
        }
    }

    /// Returns the number of events of this name that had this value in this field.
    pub fn count(&self, name: &str, field: &str, value: &str) -> usize {
        let fits = |recorded: &Recorded| {
            recorded.metadata.name() == name && recorded.fields.get(field).is_some_and(|had| had == value)
        };
        self.recorded().iter().filter(|recorded| fits(recorded)).count()
    }

    /// Returns the first span or event of this name.
    fn first(&self, name: &str) -> Recorded {
        let recorded = self.recorded();
        let found = recorded.iter().find(|recorded| recorded.metadata.name() == name);
        found.unwrap_or_else(|| panic!("no {name} in {recorded:#?}")).clone()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for EventLog {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Layered<'_, S>) {
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        self.push(Recorded { metadata: attributes.metadata(), fields, span: Some(id.into_u64()) });
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, _: Layered<'_, S>) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let span = recorded.iter_mut().rfind(|h| h.metadata.is_span() && h.span == Some(id.into_u64()));
        record.record(&mut Fields(&mut span.expect("the span is known").fields));
    }

    fn on_event(&self, event: &Event<'_>, context: Layered<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let span = context.event_span(event).map(|span| span.id().into_u64());
        self.push(Recorded { metadata: event.metadata(), fields, span });
    }
}

async fn report_trace(_: Note, context: Context, State(reporter): State<Reporter>) {
    let trace = context.trace();
    let state = trace.as_ref().and_then(TraceContext::tracestate);
    reporter.report(format!("{} {}", trace.as_ref().map_or("none", TraceContext::trace_id), state.unwrap_or("none")));
}

#[tokio::test]
async fn a_job_carries_the_trace_that_it_was_enqueued_in() {
    let (events, _guard) = EventLog::start();
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let followed = reporter.clone();
    let propagation =
        Propagation::new(|| TraceContext::parse(PARENT, Some("shop=7")).ok()).follow(move |span, trace| {
            followed.report(format!("{} under {}", span.metadata().unwrap().name(), trace.parent_id()))
        });
    let builder = Worker::builder(database.database.clone()).state(reporter).middleware(propagation);
    let worker = builder.handle(report_trace).build().unwrap();
    let metadata = serde_json::json!({"mine": 1});
    worker.enqueuer().enqueue(&database.database, &note("x")).metadata(metadata).await.unwrap();
    enqueue(&database.database, &note("without")).await.unwrap();
    worker.run_until_drained().await.unwrap();
    let expected = ["job under b7ad6b7169203331", "0af7651916cd43dd8448eb211c80319c shop=7", "none none"];
    assert_eq!(reports.rest(), expected);
    let kept = database.value("select metadata from reveille.finished_jobs where metadata is not null").await;
    assert_eq!(kept, serde_json::json!({"mine": 1, "traceparent": PARENT, "tracestate": "shop=7"}));
    let span = events.first("job");
    assert_eq!(span.fields["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span.fields["parent_id"], "b7ad6b7169203331");
}

#[tokio::test]
async fn a_trace_given_in_metadata_takes_precedence() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(database.database.clone()).queue("default", 1).state(reporter);
    let worker = builder.handle(report_trace).build().unwrap();
    let enqueue = async |metadata: &str| {
        let call = format!("select reveille.enqueue('note', '{{\"text\": \"\"}}', metadata => '{metadata}')");
        database.run(&call).await;
    };
    enqueue(&format!("{{\"traceparent\": \"{PARENT}\", \"tracestate\": \"a=1\"}}")).await;
    enqueue(&format!("{{\"traceparent\": \"{PARENT}\", \"tracestate\": \"not one\"}}")).await;
    enqueue("{\"traceparent\": \"nonsense\"}").await;
    enqueue("{\"traceparent\": 7}").await;
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 4);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    assert_eq!(reports.rest(), [&format!("{trace} a=1"), &format!("{trace} none"), "none none", "none none"]);

    let other = PARENT.replace("-01", "-00");
    let enqueuer = Enqueuer::new().middleware(Propagation::new(move || TraceContext::parse(&other, None).ok()));
    let memory = Memory::new();
    let own = serde_json::json!({"traceparent": PARENT});
    enqueuer.enqueue(&memory, &note("x")).metadata(own).await.unwrap();
    let kept = memory.jobs()[0].job.metadata.clone().unwrap();
    assert_eq!(
        kept.member::<String>("traceparent").unwrap().as_deref(),
        Some(PARENT),
        "the caller's own metadata comes first"
    );
}

#[tokio::test]
async fn an_attempts_span_names_the_job_and_holds_its_events() {
    async fn ends(note: Note) -> Outcome {
        match note.text.as_str() {
            "fail" => Outcome::Fail("no".into()),
            "die" => Outcome::Dead("never".into()),
            "snooze" => Outcome::Snooze(Duration::from_secs(60)),
            "cancel" => Outcome::Cancel,
            _ => Outcome::CompleteWith(Payload::encode("secret").unwrap()),
        }
    }
    let (events, _guard) = EventLog::start();
    let memory = Memory::new();
    let running = start(Worker::builder(memory.clone()).queue("mail", 1).handle(ends));
    let id = enqueue(&memory, &note("complete")).queue("mail").await.unwrap().id;
    let others: Vec<_> = ["fail", "die", "snooze", "cancel"].iter().map(|text| in_mail(text)).collect();
    enqueue_all(&memory, &others).await.unwrap();
    enqueue(&memory, &with(in_mail("x"), |job| job.kind = "unknown".into())).await.unwrap();
    eventually("all jobs have been attempted", async || memory.jobs().iter().all(|job| job.attempts > 0)).await;
    running.stop().await;

    let span = events.first("job");
    let worker = events.first("worker.started").fields["worker"].clone();
    let expected =
        [("attempt", "1"), ("id", &id.to_string()), ("kind", "note"), ("queue", "mail"), ("worker", &worker)];
    assert_eq!(span.fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    for name in ["job.started", "job.completed"] {
        assert_eq!(events.first(name).span, span.span, "{name} happens in its job's span");
    }
    let failed = events.first("job.failed");
    assert_eq!((failed.fields["reason"].as_str(), failed.fields["error"].as_str()), ("failed", "no"));
    assert_eq!(events.first("job.dead").fields["reason"], "permanent");
    assert_eq!(events.first("job.put_back").fields["due_in"], "60s");
    assert_eq!(events.first("jobs.enqueued").fields["jobs"], "4");
    for name in [
        "job.enqueued",
        "job.cancelled",
        "job.no_handler",
        "worker.claimed",
        "worker.settled",
        "worker.woken",
        "worker.stopping",
        "worker.stopped",
    ] {
        events.first(name);
    }
    assert!(!format!("{:?}", events.recorded()).contains("secret"), "results stay out of logs");

    let documented = documented();
    for Recorded { metadata, .. } in events.recorded() {
        let mut fields: Vec<String> = metadata.fields().iter().map(|field| field.name().to_owned()).collect();
        fields.retain(|field| field != "message");
        let line = named(metadata.name(), metadata.level().as_str(), metadata.target(), &fields);
        assert!(documented.contains(&line), "docs/reference/events.md has no line for {line}");
    }
}

fn in_mail(text: &str) -> reveille::job::NewJob {
    reveille::job::NewJob::of(&note(text)).unwrap().queue("mail")
}

/// Returns one line for a span or event, for the comparison of the docs with the code.
fn named(name: &str, level: &str, target: &str, fields: &[String]) -> String {
    let mut fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    fields.sort_unstable();
    format!("{name} {} {target}: {}", level.to_lowercase(), fields.join(" "))
}

/// Returns the lines of the tables in `docs/reference/events.md`: name, level, fields, purpose. The heading above a
/// table has the target.
fn documented() -> BTreeSet<String> {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/events.md")).unwrap();
    let (mut found, mut target) = (BTreeSet::new(), String::new());
    for line in docs.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            target = heading.split('`').nth(1).expect("a heading has a target").to_owned();
        } else if line.starts_with("| `") {
            let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
            let cells: Vec<String> = cells.collect();
            let fields: Vec<String> = cells[2].split_whitespace().map(str::to_owned).collect();
            found.insert(named(&cells[0], &cells[1], &target, &fields));
        }
    }
    found
}

/// Returns the text up to the parenthesis that closes the parenthesis just before the text.
fn within(text: &str) -> &str {
    let (mut depth, mut quoted) = (1, false);
    let end = text.char_indices().find(|&(at, c)| {
        match c {
            '"' if !text[..at].ends_with('\\') => quoted = !quoted,
            '(' | '[' if !quoted => depth += 1,
            ')' | ']' if !quoted => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    &text[..end.expect("the macro has an end").0]
}

/// Returns the arguments of a macro. Commas within parentheses, brackets or quotes separate no arguments.
fn arguments(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    let mut from = 0;
    while let Some(comma) = rest[from..].find(',').map(|at| from + at) {
        let part = &rest[..comma];
        let open = part.matches(['(', '[']).count() > part.matches([')', ']']).count();
        if open || part.matches('"').count() % 2 == 1 {
            from = comma + 1;
        } else {
            parts.push(part.trim());
            (rest, from) = (&rest[comma + 1..], 0);
        }
    }
    parts.push(rest.trim());
    parts
}

/// Adds each span and event in the sources of a folder, in the form of [`named`].
fn emitted(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() && !entry.ends_with("bin") {
            emitted(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&entry).unwrap();
            for call in source.split("tracing::").skip(1) {
                let Some((kind, rest)) = call.split_once("!(") else { continue };
                let level = kind.trim_end_matches("_span");
                if ["trace", "debug", "info", "warn", "error"].contains(&level) {
                    found.insert(one(kind != level, level, within(rest), &entry));
                }
            }
        }
    }
}

fn one(is_span: bool, level: &str, arguments_: &str, file: &Path) -> String {
    let arguments = arguments(arguments_);
    let text = |text: &str| text.trim_matches('"').to_owned();
    let option =
        |key: &str| arguments.iter().find_map(|argument| argument.strip_prefix(key)).map(|value| text(value.trim()));
    let first_text = arguments.iter().position(|argument| argument.starts_with('"'));
    let (name, fields) = match (is_span, first_text) {
        (true, Some(at)) => (Some(text(arguments[at])), &arguments[at + 1..]),
        (_, at) => (option("name:"), &arguments[..at.unwrap_or(arguments.len())]),
    };
    let (Some(name), Some(target)) = (name, option("target:")) else {
        panic!(
            "{}: tracing::{level}!({arguments_}) has no name or no target; see docs/reference/events.md",
            file.display()
        )
    };
    let is_field =
        |argument: &&&str| !argument.starts_with("name:") && !argument.starts_with("target:") && !argument.is_empty();
    let field = |argument: &&str| argument.split('=').next().unwrap().trim().trim_start_matches(['%', '?']).to_owned();
    named(&name, level, &target, &fields.iter().filter(is_field).map(field).collect::<Vec<_>>())
}

#[test]
fn the_docs_name_every_span_and_event_and_no_other() {
    let mut emitted_ = BTreeSet::new();
    emitted(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut emitted_);
    let documented = documented();
    let missing: Vec<_> = emitted_.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&emitted_).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "docs/reference/events.md lacks {missing:#?}, and no code emits {gone:#?}"
    );
    assert!(emitted_.len() > 20, "the sources have spans and events");
}
