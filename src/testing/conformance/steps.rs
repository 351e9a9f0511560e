//! Durable steps, sleeps, and waits for events.

use std::time::Duration;

use serde_json::{Value, json as value};
use tokio::sync::mpsc;

use super::subject::{HOUR, Note, QUEUE, Subject, eventually, failed, failure, job, snoozed, text};
use super::{Standing, behaviours};
use crate::driver::{Ending, FailureReason, Pausing, SleepState, Step, WaitState};
use crate::enqueue::{emit, enqueue};
use crate::handler::{Context, State};
use crate::job::{JobState, Payload, Reservation, Retried};
use crate::worker::Worker;

behaviours![
    a_recorded_step_stays_as_it_is needs Steps,
    only_the_standing_reservation_records_a_step needs Steps,
    something_new_that_is_recorded_sets_the_failures_to_0 needs Steps,
    a_dead_job_keeps_its_steps_until_it_is_done needs Steps Controls,
    a_sleep_ends_when_it_was_to_end_at_first needs Steps,
    the_first_event_of_a_name_counts needs Steps,
    names_of_events_that_are_reserved_are_refused needs Steps,
    an_event_makes_a_waiting_job_due needs Steps,
    an_event_that_comes_before_the_snooze_makes_the_job_due needs Steps,
    a_wait_that_is_over_stays_over needs Steps,
    a_handler_goes_on_behind_its_sleep_and_its_event needs Steps,
    a_job_that_a_handler_runs_is_enqueued_once needs Steps,
    the_end_of_a_job_that_a_handler_runs_is_an_event needs Steps,
    a_store_without_steps_refuses_them lacks Steps,
];

fn json<T: serde::Serialize>(value: T) -> Payload {
    Payload::encode(&value).unwrap()
}

async fn record(subject: &Subject, reservation: &Reservation, name: &str, value: i32) -> Option<Step> {
    let recorded = subject.driver.record_step(reservation, name, &json(value)).await.unwrap();
    recorded.map(|recorded| recorded.step)
}

/// Begins a wait or goes on with it. Returns its state.
async fn wait(subject: &Subject, reservation: &Reservation, event: &str, limit: Duration) -> WaitState {
    let recorded = subject.driver.record_wait(reservation, event, Pausing::Event(limit)).await.unwrap().unwrap();
    match recorded.step {
        Step::Wait(state) => state,
        step => panic!("no wait: {step:?}"),
    }
}

async fn a_recorded_step_stays_as_it_is(subject: &Subject) {
    subject.register(1).await;
    let id = subject.enqueue(job("x")).await;
    let first = subject.claim_one(1).await.reservation;
    assert_eq!(record(subject, &first, "a", 1).await, Some(Step::Value(json(1))));
    assert_eq!(record(subject, &first, "a", 2).await, Some(Step::Value(json(1))), "the answer was lost");
    assert!(subject.settle(first, snoozed(Duration::ZERO)).await);
    let second = subject.claim_one(1).await.reservation;
    assert_eq!(record(subject, &second, "a", 3).await, Some(Step::Value(json(1))));
    record(subject, &second, "b", 4).await;
    let mut steps = subject.driver.steps(id).await.unwrap();
    steps.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(steps, [("a".into(), Step::Value(json(1))), ("b".into(), Step::Value(json(4)))]);
}

async fn only_the_standing_reservation_records_a_step(subject: &Subject) {
    subject.register(1).await;
    subject.register(2).await;
    let id = subject.enqueue(job("x")).await;
    let lost = subject.claim_one(1).await.reservation;
    assert_eq!(subject.lose_worker(1, 2).await, [id]);
    let second = subject.claim_one(2).await.reservation;
    assert_eq!(record(subject, &lost, "a", 1).await, None);
    assert_eq!(subject.driver.record_wait(&lost, "e", Pausing::Event(HOUR)).await.unwrap(), None);
    assert_eq!(subject.driver.record_wait(&lost, "s", Pausing::Sleep(HOUR)).await.unwrap(), None);
    assert_eq!(record(subject, &second, "a", 2).await, Some(Step::Value(json(2))));
}

async fn something_new_that_is_recorded_sets_the_failures_to_0(subject: &Subject) {
    subject.register(1).await;
    let id = subject.enqueue(job("x")).await;
    let mut reservation = subject.claim_one(1).await.reservation;
    for failures in 1..=2 {
        assert!(subject.settle(reservation, failed(FailureReason::Failed, Duration::ZERO)).await);
        reservation = subject.claim_one(1).await.reservation;
        assert_eq!(subject.standing(id).await.failures, failures);
    }
    let recorded = subject.driver.record_step(&reservation, "a", &json(1)).await.unwrap().unwrap();
    assert_eq!((recorded.failures, subject.standing(id).await.failures), (0, 0));
    assert!(subject.settle(reservation, failed(FailureReason::Failed, Duration::ZERO)).await);
    let reservation = subject.claim_one(1).await.reservation;
    let recorded = subject.driver.record_step(&reservation, "a", &json(1)).await.unwrap().unwrap();
    assert_eq!((recorded.failures, subject.standing(id).await.failures), (1, 1), "the step is not new");
    subject.driver.record_wait(&reservation, "s", Pausing::Sleep(HOUR)).await.unwrap();
    assert_eq!(subject.standing(id).await.failures, 0);
}

async fn a_dead_job_keeps_its_steps_until_it_is_done(subject: &Subject) {
    subject.register(1).await;
    let id = subject.enqueue(job("x")).await;
    let first = subject.claim_one(1).await.reservation;
    record(subject, &first, "a", 1).await;
    assert!(subject.settle(first, Ending::Dead(failure(FailureReason::Permanent))).await);
    assert_eq!(subject.retry(id).await.unwrap(), Retried::Revived);
    let second = subject.claim_one(1).await.reservation;
    assert_eq!(subject.driver.steps(id).await.unwrap(), [("a".into(), Step::Value(json(1)))]);
    assert!(subject.settle(second, Ending::Completed(None)).await);
    subject.apply_ends().await;
    assert_eq!(subject.driver.steps(id).await.unwrap(), []);
}

async fn a_sleep_ends_when_it_was_to_end_at_first(subject: &Subject) {
    subject.register(1).await;
    subject.enqueue(job("x")).await;
    let first = subject.claim_one(1).await.reservation;
    let sleep = async |reservation: &Reservation, length| {
        subject.driver.record_wait(reservation, "s", Pausing::Sleep(length)).await.unwrap().unwrap()
    };
    let begun = sleep(&first, Duration::from_millis(300)).await;
    assert_eq!(begun.step, Step::Sleep(SleepState::Open));
    assert!(begun.left <= Duration::from_millis(300) && begun.left > Duration::ZERO, "{:?}", begun.left);
    assert!(subject.settle(first, snoozed(Duration::ZERO)).await);
    let second = subject.claim_one(1).await.reservation;
    let goes_on = sleep(&second, HOUR).await;
    assert!(goes_on.left <= begun.left, "{:?}", goes_on.left);
    eventually("the sleep is over", async || sleep(&second, HOUR).await.step == Step::Sleep(SleepState::Over)).await;
    let none = subject.driver.record_wait(&second, "none", Pausing::Sleep(Duration::ZERO)).await.unwrap().unwrap();
    assert_eq!(none.step, Step::Sleep(SleepState::Over));
}

async fn a_job_that_a_handler_runs_is_enqueued_once(subject: &Subject) {
    subject.register(1).await;
    subject.register(2).await;
    subject.enqueue(job("runs")).await;
    let lost = subject.claim_one(1).await.reservation;
    let child = job("child");
    let run = async |reservation: &Reservation, name: &str| {
        let recorded = subject.driver.run_child(reservation, name, &child).await.unwrap();
        recorded.map(|recorded| (recorded.step, recorded.failures))
    };
    let first = run(&lost, "a").await;
    assert!(matches!(first, Some((Step::Value(_), 0))), "{first:?}");
    assert_eq!(run(&lost, "a").await, first, "the answer was lost");
    assert_eq!(subject.claim_texts(10).await, ["child"]);
    subject.lose_worker(1, 2).await;
    assert_eq!(run(&lost, "b").await, None);
    let due = subject.claim(2, 10).await;
    let again = due.iter().find(|job| text(job) == "runs").unwrap().reservation;
    assert_eq!(run(&again, "a").await.map(|(step, _)| step), first.map(|(step, _)| step));
    assert!(subject.claim(2, 10).await.is_empty());
}

async fn the_end_of_a_job_that_a_handler_runs_is_an_event(subject: &Subject) {
    subject.register(1).await;
    let ends = [
        (Ending::Completed(Some(json(7))), value!({"outcome": "completed", "result": 7, "error": null})),
        (Ending::Completed(None), value!({"outcome": "completed", "result": null, "error": null})),
        (Ending::Cancelled, value!({"outcome": "cancelled", "result": null, "error": null})),
        (Ending::Dead(failure(FailureReason::Permanent)), value!({"outcome": "dead", "result": null, "error": "no"})),
    ];
    for (ending, expected) in ends {
        let parent = subject.enqueue(job("runs")).await;
        let reservation = subject.claim_one(1).await.reservation;
        let run = subject.driver.run_child(&reservation, "a", &job("child")).await.unwrap().unwrap();
        let Step::Value(id) = run.step else { panic!("{run:?}") };
        let event = format!("reveille:end:{}", id.decode::<i64>().unwrap());
        assert_eq!(wait(subject, &reservation, &event, HOUR).await, WaitState::Open);
        assert!(subject.settle(reservation, snoozed(HOUR)).await);
        let child = subject.claim_one(1).await.reservation;
        assert!(subject.settle(child, ending).await);
        subject.apply_ends().await;
        let due = subject.claim_one(1).await.reservation;
        assert_eq!(due.id, parent, "the event makes the job due");
        let WaitState::Event(end) = wait(subject, &due, &event, HOUR).await else { panic!("no event") };
        assert_eq!(end.decode::<Value>().unwrap(), expected);
        assert!(subject.settle(due, Ending::Completed(None)).await);
        subject.apply_ends().await;
    }
}

async fn the_first_event_of_a_name_counts(subject: &Subject) {
    subject.register(1).await;
    subject.enqueue(job("x")).await;
    assert!(subject.driver.emit("paid", &json(1)).await.unwrap());
    assert!(!subject.driver.emit("paid", &json(2)).await.unwrap());
    assert!(subject.driver.emit("sent", &json(3)).await.unwrap());
    let reservation = subject.claim_one(1).await.reservation;
    assert_eq!(wait(subject, &reservation, "paid", HOUR).await, WaitState::Event(json(1)));
    assert_eq!(wait(subject, &reservation, "sent", Duration::ZERO).await, WaitState::Event(json(3)));
    assert!(subject.driver.emit("null", &json(())).await.unwrap());
    assert!(!subject.driver.emit("null", &json(4)).await.unwrap());
    assert_eq!(wait(subject, &reservation, "null", Duration::MAX).await, WaitState::Event(json(())));
    assert_eq!(wait(subject, &reservation, "never", Duration::MAX).await, WaitState::Open);
}

async fn names_of_events_that_are_reserved_are_refused(subject: &Subject) {
    async fn handle(_: Note, context: Context, State(told): State<mpsc::UnboundedSender<String>>) {
        let waited = context.wait_for::<Value>("reveille:end:1", HOUR).await;
        let _ = told.send(waited.unwrap_err().to_string());
    }
    let refusal = "names of events that begin with \"reveille:\" are reserved; give the event another name";
    let error = emit(&*subject.driver, "reveille:end:1", &7).await.unwrap_err();
    assert_eq!((error.is_invalid(), error.to_string().as_str()), (true, refusal));
    subject.driver.emit("reveille:end:1", &json(7)).await.unwrap_err();
    let (told, mut errors) = mpsc::unbounded_channel::<String>();
    let worker = Worker::builder(subject.driver.clone()).queue(QUEUE, 1).state(told).handle(handle).build().unwrap();
    enqueue(&*subject.driver, &job("x")).await.unwrap();
    worker.run_until_drained().await.unwrap();
    assert_eq!(errors.try_recv().unwrap(), refusal);
}

async fn an_event_makes_a_waiting_job_due(subject: &Subject) {
    subject.register(1).await;
    let [waits, other] = [subject.enqueue(job("x")).await, subject.enqueue(job("y")).await];
    for (event, reservation) in ["paid", "sent"].iter().zip(subject.claim(1, 2).await) {
        assert_eq!(wait(subject, &reservation.reservation, event, HOUR).await, WaitState::Open);
        assert!(subject.settle(reservation.reservation, snoozed(HOUR)).await);
    }
    subject.apply_ends().await;
    assert!(subject.claim(1, 2).await.is_empty());
    subject.driver.emit("paid", &json(7)).await.unwrap();
    subject.apply_ends().await;
    let claimed = subject.claim(1, 2).await;
    assert_eq!(claimed.iter().map(|job| job.reservation.id).collect::<Vec<_>>(), [waits]);
    assert_eq!(wait(subject, &claimed[0].reservation, "paid", HOUR).await, WaitState::Event(json(7)));
    assert_eq!(subject.standing(other).await.state, JobState::Delayed);
}

async fn an_event_that_comes_before_the_snooze_makes_the_job_due(subject: &Subject) {
    subject.register(1).await;
    subject.enqueue(job("x")).await;
    let first = subject.claim_one(1).await.reservation;
    assert_eq!(wait(subject, &first, "paid", HOUR).await, WaitState::Open);
    subject.driver.emit("paid", &json(7)).await.unwrap();
    subject.apply_ends().await;
    assert!(subject.settle(first, snoozed(HOUR)).await);
    subject.apply_ends().await;
    let second = subject.claim_one(1).await.reservation;
    assert_eq!(wait(subject, &second, "paid", HOUR).await, WaitState::Event(json(7)));
}

async fn a_wait_that_is_over_stays_over(subject: &Subject) {
    subject.register(1).await;
    subject.enqueue(job("x")).await;
    let first = subject.claim_one(1).await.reservation;
    assert_eq!(wait(subject, &first, "paid", Duration::ZERO).await, WaitState::TimedOut);
    subject.driver.emit("paid", &json(7)).await.unwrap();
    assert!(subject.settle(first, snoozed(Duration::ZERO)).await);
    let second = subject.claim_one(1).await.reservation;
    assert_eq!(wait(subject, &second, "paid", HOUR).await, WaitState::TimedOut);
}

async fn a_handler_goes_on_behind_its_sleep_and_its_event(subject: &Subject) {
    async fn handle(_: Note, context: Context, State(ran): State<mpsc::UnboundedSender<String>>) -> crate::Result<()> {
        let tell = |text: &str| _ = ran.send(text.into());
        let one = context.step("one", async |_| Ok::<i32, crate::Error>(1)).await?;
        tell(&format!("one is {one}"));
        context.sleep("nap", Duration::from_millis(20)).await?;
        tell("slept");
        let event: Option<String> = context.wait_for("event", HOUR).await?;
        tell(&event.unwrap_or_default());
        Ok(())
    }
    let (ran, mut runs) = mpsc::unbounded_channel::<String>();
    let worker = Worker::builder(subject.driver.clone()).queue(QUEUE, 1).state(ran).handle(handle).build().unwrap();
    let last_attempt = job("x").max_attempts(1);
    let id = enqueue(&*subject.driver, &last_attempt).await.unwrap().id;
    let due = async || worker.run_until_drained().await.unwrap();
    eventually("the job waits for the event", async || {
        due().await;
        subject.driver.steps(id).await.unwrap().len() == 3
    })
    .await;
    let told: Vec<String> = std::iter::from_fn(|| runs.try_recv().ok()).collect();
    assert_eq!(told, ["one is 1", "one is 1", "slept"]);
    assert!(emit(&*subject.driver, "event", "come").await.unwrap());
    assert_eq!(due().await.completed, 1);
    let told: Vec<String> = std::iter::from_fn(|| runs.try_recv().ok()).collect();
    assert_eq!(told, ["one is 1", "slept", "come"]);
    assert_eq!(subject.standing(id).await, Standing::new(JobState::Completed, 3, 0));
}

async fn a_store_without_steps_refuses_them(subject: &Subject) {
    subject.register(1).await;
    subject.enqueue(job("x")).await;
    let reservation = subject.claim_one(1).await.reservation;
    assert!(subject.driver.record_step(&reservation, "a", &json(1)).await.unwrap_err().is_invalid());
    assert!(subject.driver.record_wait(&reservation, "a", Pausing::Sleep(HOUR)).await.unwrap_err().is_invalid());
    assert!(subject.driver.steps(reservation.id).await.unwrap_err().is_invalid());
    assert!(subject.driver.emit("a", &json(1)).await.unwrap_err().is_invalid());
}
