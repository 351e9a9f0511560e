//! Workers that run on the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::subject::{HOUR, Note, QUEUE, Subject, eventually, job, soon};
use super::{Standing, behaviours};
use crate::driver::{Ending, FailureReason, Report};
use crate::enqueue::enqueue;
use crate::handler::State;
use crate::job::{Due, Job, JobState, NewJob, Outcome, Payload, Priority};
use crate::worker::Worker;

behaviours![
    a_worker_runs_a_job_that_is_enqueued_while_it_waits,
    draining_runs_all_due_jobs_and_counts_them,
    an_inline_job_has_run_when_the_enqueue_returns,
    work_one_runs_the_first_job_of_its_kind_alone needs Controls,
];

/// The channel that gets the text of each job that runs.
type Ran = mpsc::UnboundedSender<String>;

async fn tell(Note(text): Note, State(ran): State<Ran>) {
    let _ = ran.send(text);
}

async fn a_worker_runs_a_job_that_is_enqueued_while_it_waits(subject: &Subject) {
    let (ran, mut runs) = mpsc::unbounded_channel::<String>();
    let poll_interval = if subject.sends_notifications { HOUR } else { Duration::from_millis(50) };
    let builder = Worker::builder(subject.driver.clone()).poll_interval(poll_interval).state(ran).handle(tell);
    let (worker, stop) = (builder.build().unwrap(), CancellationToken::new());
    let working = tokio::spawn(worker.run_until(stop.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let id = subject.enqueue(job("x")).await;
    assert_eq!(soon("the job runs", runs.recv()).await.unwrap(), "x");
    let completed = Standing::new(JobState::Completed, 1, 0);
    eventually("the job is settled", async || subject.standing(id).await == completed).await;
    stop.cancel();
    soon("the worker stops", working).await.unwrap().unwrap();
}

async fn draining_runs_all_due_jobs_and_counts_them(subject: &Subject) {
    async fn end_as_told(Note(text): Note) -> Outcome {
        match text.as_str() {
            "fail" => Outcome::Fail("no".into()),
            "die" => Outcome::Dead("never".into()),
            "snooze" => Outcome::Snooze(HOUR),
            "cancel" => Outcome::Cancel,
            _ => Outcome::Complete,
        }
    }
    let worker = Worker::builder(subject.driver.clone()).queue(QUEUE, 2).handle(end_as_told).build().unwrap();
    for text in ["a", "b", "c", "fail", "die", "snooze", "cancel"] {
        subject.enqueue(job(text)).await;
    }
    subject.enqueue(NewJob { due: Due::In(HOUR), ..job("later") }).await;
    subject.enqueue(NewJob { kind: "unknown".into(), ..job("x") }).await;
    let run = worker.run_until_drained().await.unwrap();
    assert_eq!((run.completed, run.failed, run.dead), (3, 1, 1));
    assert_eq!((run.put_back, run.cancelled), (2, 1));
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 0);
    subject.register(1).await;
    let peers = subject.driver.beat(1, &Report::default()).await.unwrap().peers;
    assert!(peers.is_empty(), "the worker has left");
}

async fn an_inline_job_has_run_when_the_enqueue_returns(subject: &Subject) {
    let (ran, mut runs) = mpsc::unbounded_channel::<String>();
    let inline = Worker::builder(subject.driver.clone()).state(ran).handle(tell).build().unwrap().inline();
    let id = enqueue(&inline, &Note("now".into())).await.unwrap().id;
    assert_eq!(runs.try_recv().unwrap(), "now");
    assert_eq!(subject.standing(id).await, Standing::new(JobState::Completed, 1, 0));
    let later = enqueue(&inline, &Note("later".into())).delay(HOUR).await.unwrap().id;
    assert_eq!(subject.standing(later).await, Standing::new(JobState::Delayed, 0, 0));
    let bad = NewJob::new(Note::KIND, Payload::encode(&7).unwrap());
    let bad = enqueue(&inline, &bad).await.unwrap().id;
    let dead = Standing::new(JobState::Dead, 1, 1).reason(Some(FailureReason::Undecodable));
    assert_eq!(subject.standing(bad).await, dead);
}

async fn work_one_runs_the_first_job_of_its_kind_alone(subject: &Subject) {
    #[derive(Serialize, Deserialize)]
    struct Other(String);
    impl Job for Other {
        const KIND: &'static str = "other";
    }
    let (ran, mut runs) = mpsc::unbounded_channel::<String>();
    let tell_other = async |Other(text): Other, State(ran): State<Ran>| _ = ran.send(text);
    let builder = Worker::builder(subject.driver.clone()).queue(QUEUE, 4).queue("b", 4);
    let worker = builder.state(ran).handle(tell_other).build().unwrap();
    let other = |text: &str| NewJob::of(&Other(text.into())).unwrap();
    let before = subject.enqueue(job("before")).await;
    subject.enqueue(NewJob { due: Due::In(HOUR), priority: Priority::Urgent, ..other("later") }).await;
    let low = subject.enqueue(NewJob { priority: Priority::Low, ..other("low") }).await;
    let after = subject.enqueue(NewJob { priority: Priority::Low, ..job("after") }).await;
    let high = subject.enqueue(NewJob { queue: "b".into(), ..other("high") }).await;
    subject.store.pause(&"b".into()).await;
    for (id, text) in [(low, "low"), (high, "high")] {
        let worked = worker.work_one::<Other>().await.unwrap().unwrap();
        assert_eq!((worked.id, worked.ending), (id, Ending::Completed(None)));
        assert_eq!(runs.try_recv().unwrap(), text);
        subject.store.resume(&"b".into()).await;
    }
    let (ready, untouched) = (Standing::new(JobState::Ready, 2, 0), Standing::new(JobState::Ready, 1, 0));
    assert_eq!([subject.standing(before).await, subject.standing(after).await], [ready, untouched]);
    assert_eq!(worker.work_one::<Other>().await.unwrap(), None, "the last job is delayed");
}
