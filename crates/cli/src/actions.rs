//! `actions`: who did what, and stopping a run over many jobs.

use clap::{Args, Subcommand};
use reveille::admin::ActionRow;
use serde_json::Value;

use crate::connection::Connection;
use crate::jobs::{Answer, each};
use crate::{Outcome, output};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ActionsCommand {
    #[command(subcommand)]
    action: Option<ActionsAction>,
    #[command(flatten)]
    list: ListActions,
}

#[derive(Subcommand)]
enum ActionsAction {
    /// List actions: the default.
    List(ListActions),
    /// Stop changes of many jobs, whatever process makes them. The jobs that are changed already stay changed.
    Stop(StopActions),
}

#[derive(Args)]
struct ListActions {
    /// List at most this many actions, newest first.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// Only actions with lower ids than this one, for the next page.
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct StopActions {
    /// The ids of the actions.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

impl ActionsCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        match self.action.unwrap_or(ActionsAction::List(self.list)) {
            ActionsAction::List(list) => list.run(connection).await,
            ActionsAction::Stop(stop) => stop.run(connection).await,
        }
    }
}

impl ListActions {
    async fn run(self, connection: &Connection) -> Outcome {
        let actions = connection.database().await?.admin().actions(self.before, self.limit).await?;
        if self.json {
            return Ok(output::print(actions.iter().map(ActionRow::record), &[], true)?);
        }
        let row = |action: &ActionRow| {
            let column = |name| output::cell(action.record().get(name));
            let texts = [target(&action.target), result(action)].map(|text| output::cell(Some(&json_text(text))));
            [column("id"), column("started_at"), column("actor"), column("action")].into_iter().chain(texts).collect()
        };
        let columns = ["id", "started_at", "actor", "action", "target", "result"];
        Ok(output::print_rows(&columns, actions.iter().map(row))?)
    }
}

impl StopActions {
    async fn run(self, connection: &Connection) -> Outcome {
        let admin = connection.operator().await?;
        let stop = async |id| {
            let stops = admin.stop_action(id).await?;
            Ok(Answer::new(if stops { "stopping" } else { "unknown" }, stops))
        };
        each(&self.ids, self.json, stop).await
    }
}

fn json_text(text: String) -> String {
    Value::from(text).to_string()
}

/// Returns the target in words: `job 7`, `queue mail`, or `jobs with kind=charge`.
fn target(target: &Value) -> String {
    let part = |(name, value): (&String, &Value)| match value {
        Value::Object(filter) if name == "filter" && filter.is_empty() => "all jobs".to_owned(),
        Value::Object(filter) if name == "filter" => format!("jobs with {}", settings(filter.iter())),
        value => format!("{name} {}", word(value)),
    };
    match target.as_object() {
        Some(parts) if !parts.is_empty() => parts.iter().map(part).collect::<Vec<_>>().join(", "),
        _ => "-".into(),
    }
}

/// Returns the result in words: the answer with the new settings, or how far a run has come.
fn result(action: &ActionRow) -> String {
    let mut text = match action.done {
        Some(done) => {
            let of = action.matching.map(|matching| format!(" of {matching}")).unwrap_or_default();
            format!("{}: {done}{of}", action.state.name())
        }
        None => action.detail.get("answer").map_or(action.state.name().into(), word),
    };
    let counts = [(action.passed_over, "passed over"), (action.left_over, "left over"), (action.refused, "refused")];
    for (count, what) in counts {
        if let Some(count) = count.filter(|count| *count > 0) {
            text += &format!(", {count} {what}");
        }
    }
    if let Some(job) = action.detail.get("job") {
        text += &format!(" job {}", word(job));
    }
    if let Some(new) = action.detail.get("new").and_then(Value::as_object) {
        text += &format!(" {}", settings(new.iter()));
    }
    if let Some(error) = &action.error {
        text += &format!(": {error}");
    }
    text
}

/// Returns settings as `max_running=5 ordered=true`.
fn settings<'a>(settings: impl Iterator<Item = (&'a String, &'a Value)>) -> String {
    settings.map(|(name, value)| format!("{name}={}", word(value))).collect::<Vec<_>>().join(" ")
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "default".into(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(","),
        // In place of a payload there are its hash and length.
        Value::Object(payload) => match (payload.get("sha256").and_then(Value::as_str), payload.get("bytes")) {
            (Some(hash), Some(bytes)) => format!("({bytes} bytes, sha256 {})", hash.get(..8).unwrap_or(hash)),
            _ => value.to_string(),
        },
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_target_is_shown_in_words() {
        let payload = json!({"sha256": "0123456789abcdef", "bytes": 14});
        for (value, shown) in [
            (json!({"job": 7}), "job 7"),
            (json!({"queue": "mail", "worker": 3}), "queue mail, worker 3"),
            (json!({"filter": {}}), "all jobs"),
            (json!({"filter": {"kind": "charge", "tags": ["a", "b"]}}), "jobs with kind=charge tags=a,b"),
            (json!({"filter": {"payload": payload}}), "jobs with payload=(14 bytes, sha256 01234567)"),
            (json!({}), "-"),
        ] {
            assert_eq!(target(&value), shown);
        }
    }
}
