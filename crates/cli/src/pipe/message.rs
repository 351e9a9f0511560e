//! The messages of the pipe protocol, as `docs/reference/pipe.md` describes them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use reveille::handler::StopReason;
use reveille::job::Payload;
use reveille::{Context, Outcome};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The version of the protocol that this worker speaks.
pub const VERSION: u64 = 1;
/// The longest line in both directions, in bytes, without its end.
pub const LONGEST_LINE: usize = 16 << 20;
/// The longest part of a broken line that an error shows.
const LONGEST_SHOWN: usize = 100;

/// A message from a child.
#[derive(Debug)]
pub enum ChildMessage {
    /// The child is ready. `kinds`: the kinds that it has handlers for; `None`: all.
    Ready { kinds: Option<HashSet<String>> },
    /// A run has ended.
    Ended { run: u64, answer: Answer },
    /// The progress of a run.
    Progress { run: u64, value: Payload },
    /// A request for new jobs, each with the JSON of its arguments.
    Enqueue { request: u64, run: Option<u64>, jobs: Vec<String> },
}

/// The child's answer to a run.
#[derive(Debug)]
pub struct Answer {
    pub outcome: Outcome,
    /// The transaction in which the child has completed the job.
    pub transaction: Option<String>,
}

/// The members of all messages. Only those that a message has are decoded further.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(rename = "type", borrow)]
    name: Cow<'a, str>,
    run: Option<u64>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    kinds: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    transaction: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    retry_in: Option<&'a RawValue>,
    #[serde(borrow)]
    permanent: Option<&'a RawValue>,
    #[serde(rename = "for", borrow)]
    snoozed_for: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
    #[serde(borrow)]
    jobs: Option<&'a RawValue>,
}

/// Reads a line of a child. The error says what is wrong with the line.
pub fn parse(line: &[u8]) -> Result<ChildMessage, String> {
    let text = std::str::from_utf8(line).map_err(|_| format!("a line that is not UTF-8: {}", shown(line)))?;
    let members: Members<'_> =
        serde_json::from_str(text).map_err(|error| format!("a line that is no message ({error}): {}", shown(line)))?;
    members.message().map_err(|error| format!("{error}: {}", shown(line)))
}

/// Returns the beginning of a line for an error, in quotes and with escapes.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(LONGEST_SHOWN)]);
    format!("{text:?}{}", if line.len() > LONGEST_SHOWN { "..." } else { "" })
}

impl Members<'_> {
    fn message(&self) -> Result<ChildMessage, String> {
        let run = || self.run.ok_or_else(|| self.lacks("run"));
        match &*self.name {
            "ready" => {
                let version: u64 = self.required("version", self.version)?;
                if version != VERSION {
                    return Err(format!("the child speaks version {version}, the worker {VERSION}"));
                }
                Ok(ChildMessage::Ready { kinds: self.optional("kinds", self.kinds)? })
            }
            "done" => {
                let transaction: Option<String> = self.optional("transaction", self.transaction)?;
                if transaction.as_ref().is_some_and(|id| id.parse::<u64>().is_err()) {
                    return Err("`transaction` is not a text that reveille.complete_in returned".into());
                }
                Ok(ChildMessage::Ended { run: run()?, answer: Answer { outcome: self.done(), transaction } })
            }
            "fail" => Ok(ChildMessage::Ended { run: run()?, answer: self.failed()?.into() }),
            "snooze" => {
                let outcome = Outcome::Snooze(self.time("for", Some(self.required("for", self.snoozed_for)?))?);
                Ok(ChildMessage::Ended { run: run()?, answer: outcome.into() })
            }
            "progress" => {
                let value = self.value.map_or("null", RawValue::get);
                let value = Payload::parse(value).map_err(|error| format!("`value` cannot be stored: {error}"))?;
                Ok(ChildMessage::Progress { run: run()?, value })
            }
            "enqueue" => {
                let jobs: Vec<Box<RawValue>> = self.required("jobs", self.jobs)?;
                let jobs = jobs.iter().map(|job| job.get().to_owned()).collect();
                Ok(ChildMessage::Enqueue { request: self.required("request", self.request)?, run: self.run, jobs })
            }
            _ => Err("a message of an unknown type".into()),
        }
    }

    /// A result that cannot be stored is dropped: the job is completed all the same.
    fn done(&self) -> Outcome {
        let Some(result) = self.result else { return Outcome::Complete };
        Payload::parse(result.get()).map_or_else(
            |error| {
                tracing::warn!(
                    name: "job.result_dropped", target: "reveille::job", %error,
                    "the job's result is dropped; the job is completed without it"
                );
                Outcome::Complete
            },
            Outcome::CompleteWith,
        )
    }

    fn failed(&self) -> Result<Outcome, String> {
        let error: String = self.required("error", self.error)?;
        let permanent = self.optional("permanent", self.permanent)?.unwrap_or(false);
        match (permanent, self.optional("retry_in", self.retry_in)?) {
            (true, Some(_)) => Err("`permanent` and `retry_in` exclude each other".into()),
            (true, None) => Ok(Outcome::Dead(error)),
            (false, None) => Ok(Outcome::Fail(error)),
            (false, delay) => Ok(Outcome::RetryIn(self.time("retry_in", delay)?, error)),
        }
    }

    fn time(&self, name: &str, seconds: Option<f64>) -> Result<Duration, String> {
        let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        time.ok_or_else(|| format!("`{name}` of `{}` is no number of seconds", self.name))
    }

    fn required<T: DeserializeOwned>(&self, name: &str, value: Option<&RawValue>) -> Result<T, String> {
        self.optional(name, value)?.ok_or_else(|| self.lacks(name))
    }

    fn optional<T: DeserializeOwned>(&self, name: &str, value: Option<&RawValue>) -> Result<Option<T>, String> {
        let read = |value: &RawValue| serde_json::from_str(value.get());
        value.map(read).transpose().map_err(|error| format!("`{name}` of `{}` is wrong ({error})", self.name))
    }

    fn lacks(&self, name: &str) -> String {
        format!("`{}` lacks `{name}`", self.name)
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Answer {
        Answer { outcome, transaction: None }
    }
}

/// Returns the line of the first message to a child.
pub fn hello(queues: &[&str], slots: usize) -> Vec<u8> {
    let queues = json!(queues);
    format!(
        "{{\"type\":\"hello\",\"versions\":[{VERSION}],\"capabilities\":[\"enqueue\"],\"queues\":{queues},\
         \"slots\":{slots}}}\n"
    )
    .into_bytes()
}

pub fn cancel(run: u64, reason: StopReason) -> Vec<u8> {
    format!("{{\"type\":\"cancel\",\"run\":{run},\"reason\":\"{}\"}}\n", reason.name()).into_bytes()
}

pub fn stop() -> Vec<u8> {
    b"{\"type\":\"stop\"}\n".to_vec()
}

/// Returns the line of the answer to a request: its result, or an error.
pub fn answer(request: u64, answer: &Result<Value, String>) -> Vec<u8> {
    let (name, value) = match answer {
        Ok(result) => ("result", result.to_string()),
        Err(error) => ("error", json!(error).to_string()),
    };
    format!("{{\"type\":\"answer\",\"request\":{request},\"{name}\":{value}}}\n").into_bytes()
}

/// Returns the part of a `job` line after the number of its run.
///
/// # Errors
/// The error says that the line would be too long.
pub fn job(context: &Context) -> Result<Vec<u8>, String> {
    let (job, attempt, reservation) = (context.job(), context.attempt(), &context.job().reservation);
    let reserved_at = jiff::Timestamp::try_from(reservation.reserved_at).unwrap_or_default();
    let timeout = context.timeout().map_or("null".to_owned(), |timeout| timeout.as_secs_f64().to_string());
    let mut line = Vec::with_capacity(512 + job.payload.as_bytes().len());
    let _ = write!(
        line,
        ",\"id\":{},\"kind\":{},\"queue\":{},\"attempt\":{},\"failures\":{},\"max_attempts\":{},\"key\":{},\
         \"tags\":{},\"timeout\":{timeout},\"worker\":\"{}\",\"reserved_at\":\"{reserved_at:.6}\",\"metadata\":",
        context.id(),
        json!(job.kind),
        json!(job.queue),
        attempt.number,
        attempt.failures,
        attempt.max_attempts,
        json!(job.key),
        json!(job.tags),
        reservation.worker,
    );
    on_one_line(&mut line, job.metadata.as_ref().map_or(b"{}", |metadata| metadata.as_bytes()));
    line.extend_from_slice(b",\"payload\":");
    on_one_line(&mut line, job.payload.as_bytes());
    line.extend_from_slice(b"}\n");
    if line.len() > LONGEST_LINE - MOST_BEFORE_ID {
        return Err(format!("the job's line of {} bytes is longer than a child takes, {LONGEST_LINE}", line.len()));
    }
    Ok(line)
}

/// The most bytes of a `job` line before its member `id`.
const MOST_BEFORE_ID: usize = 64;

/// Returns the beginning of a `job` line.
pub fn job_of_run(run: u64) -> String {
    format!("{{\"type\":\"job\",\"run\":{run}")
}

/// Adds JSON to a line. Ends of lines within JSON are blanks between its parts, since strings have them as escapes.
fn on_one_line(line: &mut Vec<u8>, json: &[u8]) {
    let start = line.len();
    line.extend_from_slice(json);
    line[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(line: &str) -> Outcome {
        match parse(line.as_bytes()) {
            Ok(ChildMessage::Ended { run: 1, answer }) => answer.outcome,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn an_answer_becomes_an_outcome() {
        assert_eq!(outcome(r#"{"type":"done","run":1}"#), Outcome::Complete);
        assert_eq!(outcome(r#"{"run":1,"result":null,"type":"done","new":[{}]}"#), Outcome::Complete);
        let result = Outcome::CompleteWith(Payload::parse(r#"{"n": 12345678901234567890}"#).unwrap());
        assert_eq!(outcome(r#"{"type":"done","run":1,"result":{"n": 12345678901234567890}}"#), result);
        assert_eq!(outcome(r#"{"type":"done","run":1,"result":"\u0000"}"#), Outcome::Complete);
        assert_eq!(outcome(r#"{"type":"fail","run":1,"error":"a\nb"}"#), Outcome::Fail("a\nb".into()));
        assert_eq!(outcome(r#"{"type":"fail","run":1,"error":"x","permanent":true}"#), Outcome::Dead("x".into()));
        let retry = Outcome::RetryIn(Duration::from_millis(1500), "x".into());
        assert_eq!(outcome(r#"{"type":"fail","run":1,"error":"x","retry_in":1.5}"#), retry);
        assert_eq!(outcome(r#"{"type":"snooze","run":1,"for":60}"#), Outcome::Snooze(Duration::from_secs(60)));
        let deep = format!(r#"{{"type":"done","run":1,"result":{}{}}}"#, "[".repeat(500), "]".repeat(500));
        assert!(matches!(outcome(&deep), Outcome::CompleteWith(_)));
    }

    #[test]
    fn a_broken_line_is_refused_with_its_beginning() {
        for (line, why) in [
            ("", "no message"),
            ("hello", "no message"),
            ("[]", "no message"),
            (r#"{"type":"done"}"#, "`done` lacks `run`"),
            (r#"{"type":"done","run":-1}"#, "no message"),
            (r#"{"type":"done","run":1,"transaction":"x"}"#, "`transaction`"),
            (r#"{"type":"fail","run":1}"#, "`fail` lacks `error`"),
            (r#"{"type":"fail","run":1,"error":"x","retry_in":-1}"#, "`retry_in`"),
            (r#"{"type":"fail","run":1,"error":"x","retry_in":1,"permanent":true}"#, "exclude"),
            (r#"{"type":"snooze","run":1}"#, "`snooze` lacks `for`"),
            (r#"{"type":"snooze","run":1,"for":1e300}"#, "seconds"),
            (r#"{"type":"ready","version":2}"#, "version 2"),
            (r#"{"type":"surprise"}"#, "unknown type"),
            (r#"{"run":1}"#, "no message"),
        ] {
            let error = parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        assert!(parse(b"\xff").unwrap_err().contains("not UTF-8"));
        assert!(parse(&[b'x'; 100_000]).unwrap_err().len() < 300);
    }

    #[test]
    fn a_child_may_say_its_kinds_or_not() {
        let kinds = |line: &str| match parse(line.as_bytes()) {
            Ok(ChildMessage::Ready { kinds }) => kinds.map(|kinds| kinds.len()),
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(kinds(r#"{"type":"ready","version":1,"kinds":["a","b"],"capabilities":[]}"#), Some(2));
        assert_eq!(kinds(r#"{"type":"ready","version":1}"#), None);
    }

    #[test]
    fn json_of_several_lines_becomes_one_line() {
        let mut line = Vec::new();
        on_one_line(&mut line, b"{\n  \"a\": \"x\\ny\"\r\n}");
        assert_eq!(line, b"{   \"a\": \"x\\ny\"  }");
    }
}
