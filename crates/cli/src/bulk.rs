//! Changing many jobs that a filter chooses: counting them, asking, and reporting.

use std::pin::pin;

use clap::Args;
use reveille::admin::{Admin, Bulk, BulkAction, BulkResult, Filter, RefusedJob};
use serde_json::{Map, Value, json};

use crate::progress::Progress;
use crate::work::stop_signal;
use crate::{Failure, Outcome, output};

#[derive(Args)]
pub struct BulkArgs {
    /// All jobs, without a filter.
    #[arg(long)]
    pub all: bool,
    /// Only count the jobs.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before changing more than 100 jobs.
    #[arg(long, short)]
    pub yes: bool,
}

/// The largest number of jobs that is changed without a question.
const WITHOUT_QUESTION: u64 = 100;

/// The words for an action and its result.
struct Words {
    /// What the action does: "cancel".
    verb: &'static str,
    /// What the command is doing: "cancelling".
    doing: &'static str,
    /// What happened to a job: "cancelled".
    done: &'static str,
    /// The key of the number of these jobs in the JSON object.
    key: &'static str,
    /// What did not happen to a job: "is not cancelled".
    not_done: &'static str,
    /// Why jobs are left over.
    left: &'static str,
}

impl BulkArgs {
    /// Returns the filter of a change, if the user has chosen jobs by a filter and not by ids.
    ///
    /// Fails if the user has chosen no jobs, or has chosen them in both ways.
    pub fn filter(&self, ids: &[i64], filter: Filter) -> Result<Option<Filter>, Failure> {
        let has_filter = !filter.is_empty();
        match (ids.is_empty(), has_filter || self.all) {
            (true, false) => {
                Err("no jobs are chosen; give ids, or a filter such as --kind, or --all".to_owned().into())
            }
            (false, true) => Err("choose jobs by their ids or by a filter, not both".to_owned().into()),
            (false, false) if self.dry_run => {
                Err("--dry-run counts the jobs of a filter; leave it out, or give a filter".to_owned().into())
            }
            (false, false) => Ok(None),
            (true, true) if has_filter && self.all => {
                Err("--all chooses all jobs; leave it out, or leave the filter out".to_owned().into())
            }
            (true, true) => Ok(Some(filter)),
        }
    }

    /// Changes the jobs of a filter, slice by slice, and reports the result.
    pub async fn run(&self, admin: &Admin, action: BulkAction, filter: &Filter, json: bool) -> Outcome {
        let words = words(&action);
        let is_run_again = action == BulkAction::RunAgain;
        let mut bulk = admin.bulk(action, filter)?;
        let progress = Progress::start("counting jobs", json);
        if self.dry_run {
            let count = bulk.count().await?;
            drop(progress);
            let text = format!("{} to {}", jobs(count), words.verb);
            return Ok(output::answer(json, json!({"matching": count}), text)?);
        }
        let mut count = None;
        if !self.yes {
            let counted = bulk.count().await?;
            if counted > WITHOUT_QUESTION && !ask(counted, &words)? {
                return Err(Failure::Error(format!("not confirmed: nothing was {}", words.done)));
            }
            count = Some(counted);
        }
        progress.go_on(format_args!("{} jobs", words.doing));
        let ended = step_by_step(&mut bulk, count, &progress).await;
        if matches!(ended, Ok(false)) {
            // If this cannot be recorded, the action is shown as interrupted.
            let _ = bulk.stop().await;
        }
        drop(progress);
        let again = if is_run_again && bulk.result().done > 0 {
            "; if repeated, this command runs the first jobs once more"
        } else {
            ""
        };
        match ended {
            Ok(true) if !bulk.result().is_stopped => report(&words, bulk.result(), json),
            Ok(ended) => {
                let how = if ended { "stopped by `reveille actions stop`" } else { "interrupted" };
                let far = bulk.result().last_id.map(|id| format!(", up to job {id}")).unwrap_or_default();
                report(&words, bulk.result(), json).or_else(|failure| match failure {
                    Failure::NotFound => Ok(()),
                    failure => Err(failure),
                })?;
                Err(Failure::Error(format!("{how}{far}; the other jobs are not touched{again}")))
            }
            Err(error) => {
                if bulk.result().done > 0 {
                    say!("{} {} before the error{again}", bulk.result().done, words.done);
                }
                Err(error)
            }
        }
    }
}

/// Asks on the terminal. Without a terminal, this refuses.
fn ask(count: u64, words: &Words) -> Result<bool, Failure> {
    let question = format!("{} {}? [y/N]", words.verb, jobs(count));
    output::ask(&question)?.ok_or_else(|| {
        let done = words.done;
        format!("{count} jobs would be {done}, and there is no terminal to ask on; give --yes if this is intended")
            .into()
    })
}

fn jobs(count: u64) -> String {
    format!("{count} job{}", if count == 1 { "" } else { "s" })
}

/// Makes the change. Returns false if a signal has interrupted it: the slice under way was made. A second signal does
/// not wait for the slice.
async fn step_by_step(bulk: &mut Bulk, count: Option<u64>, progress: &Progress) -> Result<bool, Failure> {
    let mut stop = pin!(stop_signal());
    progress.leave_signals();
    loop {
        match (bulk.result().done, count) {
            (done, Some(count)) => progress.count(done.min(count), count),
            (done, None) => progress.note(format_args!("{done} so far")),
        }
        let mut is_stopped = false;
        let mut step = pin!(bulk.step());
        let goes_on = loop {
            tokio::select! {
                goes_on = &mut step => break goes_on?,
                () = &mut stop => {
                    if is_stopped {
                        let may_go_on = "interrupted twice: the jobs of the last slice may still be changed";
                        return Err(may_go_on.to_owned().into());
                    }
                    is_stopped = true;
                    progress.note("interrupted, waiting for the end of this slice");
                    stop.set(stop_signal());
                }
            }
        };
        if !goes_on {
            return Ok(true);
        }
        if is_stopped {
            return Ok(false);
        }
    }
}

/// Prints the result. A reader that has closed the pipe is no error. Fails with [`Failure::NotFound`] if a job that was
/// chosen was not changed.
fn report(words: &Words, result: &BulkResult, json: bool) -> Outcome {
    let BulkResult { done, requested, passed_over, left_over, refused, .. } = result;
    let mut object = Map::new();
    for (key, count) in [
        (words.key, *done - *requested),
        ("requested", *requested),
        ("passed_over", *passed_over),
        ("left_over", *left_over),
        ("refused", refused.len() as u64),
    ] {
        if key != "requested" || words.key == "cancelled" {
            object.insert(key.to_owned(), count.into());
        }
    }
    let asked = if *requested > 0 { format!(", {requested} asked to stop") } else { String::new() };
    output::answer(json, Value::from(object), format_args!("{} {}{asked}", done - requested, words.done))?;
    if *passed_over > 0 {
        say!("{passed_over} passed over: they changed meanwhile, or another session has locked them");
    }
    if *left_over > 0 {
        say!("{left_over} {}", words.left);
    }
    for RefusedJob { id, error, .. } in refused {
        say!("job {id} {}: {error}", words.not_done);
    }
    if *passed_over + *left_over > 0 || !refused.is_empty() { Err(Failure::NotFound) } else { Ok(()) }
}

fn words(action: &BulkAction) -> Words {
    let (verb, doing, done, not_done) = match action {
        BulkAction::Cancel => ("cancel", "cancelling", "cancelled", "is not cancelled"),
        BulkAction::Revive => ("revive", "reviving", "revived", "stays dead"),
        BulkAction::Purge => ("purge", "purging", "purged", "stays dead"),
        BulkAction::Edit(_) => ("edit", "editing", "edited", "is not edited"),
        BulkAction::RunAgain => ("run again", "enqueuing", "run again", "is not run again"),
        _ => ("retry", "retrying", "retried", "is not retried"),
    };
    let key = if *action == BulkAction::RunAgain { "again" } else { done };
    let left = match action {
        BulkAction::Edit(_) => "stay unchanged, because their payloads are encrypted, and the new one is not",
        _ => "stay dead, because live jobs hold their unique keys",
    };
    Words { verb, doing, done, key, not_done, left }
}
