//! The handler of jobs with steps, a sleep, and a wait for an event.

use std::sync::Arc;
use std::time::Duration;

use reveille::handler::Cancellation;
use reveille::{Context, Database, State};
use tokio::time::timeout;

use super::work::apply;
use super::{DurableTask, LinkedTask, event_of};
use crate::torture::journal::{self, Journal};
use crate::torture::worker::{self, ANSWER_WITHIN, HandlerError};

/// The names of the sleep and of the wait in the journal.
pub const NAP: &str = "nap";
pub const EVENT: &str = "event";
/// In the journal, the value of a wait whose event did not come in time.
pub const NO_EVENT: &str = "none";

/// The number of failures in 100 runs of a step's code.
const FAILURES_IN_A_HUNDRED: u8 = 5;

/// Runs a step, sleeps, runs another step, may wait for an event, and runs a third step. Then writes the job's effect.
pub async fn work(
    task: DurableTask,
    State(journal): State<Arc<Journal>>,
    State(database): State<Database>,
    context: Context,
    cancellation: Cancellation,
) -> Result<(), HandlerError> {
    let attempt = i32::try_from(context.attempt().number)?;
    let entry = journal.attempt(task.job, attempt);
    let run = async {
        let steps = Noted { job: task.job, attempt, began: journal::now(), journal: &journal, context: &context };
        steps.step("first").await?;
        steps.sleep(task.nap_ms).await?;
        steps.step("second").await?;
        if let Some(within) = task.event_within_ms {
            steps.wait(within).await?;
        }
        worker::fail_at_random()?;
        steps.step("third").await?;
        let end = LinkedTask { job: task.job, once: !task.job.is_multiple_of(worker::IDEMPOTENT), adds: 0 };
        let mut client = database.client().await?;
        let applied = timeout(ANSWER_WITHIN, apply(&end, entry, &mut client, &context)).await;
        worker::answered(client, applied)
    };
    tokio::select! {
        outcome = run => outcome,
        () = cancellation.cancelled() => Err("cancelled".into()),
    }
}

/// The steps of one attempt, which are noted in the journal: `c` with the beginning of the attempt when the code of a
/// step begins, `w` when a sleep or a wait begins, and `r` with the value that the handler got.
struct Noted<'a> {
    job: u64,
    attempt: i32,
    began: Duration,
    journal: &'a Journal,
    context: &'a Context,
}

impl Noted<'_> {
    async fn step(&self, name: &str) -> Result<(), HandlerError> {
        let code = async |_key| {
            self.note('c', name, self.began.as_nanos());
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..20))).await;
            if fastrand::u8(0..100) < FAILURES_IN_A_HUNDRED { Err("the step failed") } else { Ok(fastrand::u32(..)) }
        };
        let value = self.context.step(name, code).await?;
        self.note('r', name, value);
        Ok(())
    }

    async fn sleep(&self, milliseconds: u64) -> Result<(), HandlerError> {
        self.note('w', NAP, milliseconds);
        self.context.sleep(NAP, Duration::from_millis(milliseconds)).await?;
        self.note('r', NAP, milliseconds);
        Ok(())
    }

    async fn wait(&self, milliseconds: u64) -> Result<(), HandlerError> {
        self.note('w', EVENT, milliseconds);
        let payload: Option<u64> =
            self.context.wait_for(event_of(self.job), Duration::from_millis(milliseconds)).await?;
        match payload {
            Some(payload) => self.note('r', EVENT, payload),
            None => self.note('r', EVENT, NO_EVENT),
        }
        Ok(())
    }

    fn note(&self, sign: char, name: &str, value: impl std::fmt::Display) {
        self.journal.note(sign, self.job, self.attempt, name, value);
    }
}
