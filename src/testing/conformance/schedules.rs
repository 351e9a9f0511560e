//! Schedules: declaring and firing them.

use std::time::{Duration, SystemTime};

use super::behaviours;
use super::subject::{HOUR, Note, Subject, text};
use crate::driver::{DueSchedule, Firing};
use crate::schedule::Schedule;

behaviours![
    a_firing_counts_once_for_the_schedule_as_it_was_seen needs Schedules,
    a_schedule_goes_on_unless_its_timing_changes needs Schedules,
    a_store_without_schedules_refuses_them lacks Schedules,
];

fn every(name: &str, every: Duration) -> Schedule {
    Schedule::every(name, every, &Note("tick".into())).unwrap()
}

async fn declare(subject: &Subject, schedules: &[Schedule]) {
    subject.driver.declare(1, schedules).await.unwrap();
}

async fn due(subject: &Subject) -> Vec<DueSchedule> {
    subject.driver.due_schedules(9).await.unwrap().schedules
}

async fn a_firing_counts_once_for_the_schedule_as_it_was_seen(subject: &Subject) {
    subject.register(1).await;
    declare(subject, &[every("often", HOUR)]).await;
    let new = due(subject).await.pop().expect("its first tick is not computed yet");
    let now = new.counted_from;
    let fire = async |firing: Firing| subject.driver.fire(&[firing]).await.unwrap();
    let first = |seen: &DueSchedule| Firing::new(seen, vec![], Ok(now));
    assert_eq!(fire(first(&new)).await, 1);
    assert_eq!(fire(first(&new)).await, 0, "its first tick was computed");
    let ticks = vec![now - HOUR, now];
    let next = |counted_from: SystemTime| {
        let seen = DueSchedule { counted_from, next_at: Some(now), ..new.clone() };
        Firing::new(&seen, ticks.clone(), Ok(now + 2 * HOUR))
    };
    assert_eq!(fire(next(now + HOUR)).await, 0, "its timing was changed");
    assert_eq!(fire(next(now)).await, 1);
    assert_eq!(fire(next(now)).await, 0, "it was moved on");
    let answer = subject.driver.due_schedules(9).await.unwrap();
    assert!(answer.schedules.is_empty() && answer.due_in.unwrap() > HOUR, "{answer:?}");
    let jobs = subject.claim(1, 9).await;
    assert_eq!(jobs.iter().map(text).collect::<Vec<_>>(), ["tick", "tick"]);
}

async fn a_schedule_goes_on_unless_its_timing_changes(subject: &Subject) {
    subject.register(1).await;
    declare(subject, &[every("often", HOUR)]).await;
    let new = due(subject).await.pop().unwrap();
    let next = Ok(new.counted_from + HOUR);
    assert_eq!(subject.driver.fire(&[Firing::new(&new, vec![], next)]).await.unwrap(), 1);
    declare(subject, &[every("often", HOUR), every("more", HOUR)]).await;
    assert_eq!(due(subject).await.iter().map(|due| due.name.as_str()).collect::<Vec<_>>(), ["more"]);
    declare(subject, &[every("often", HOUR * 2)]).await;
    assert_eq!(due(subject).await.len(), 2, "its next tick is computed again");
}

async fn a_store_without_schedules_refuses_them(subject: &Subject) {
    subject.register(1).await;
    declare(subject, &[]).await;
    let error = subject.driver.declare(1, &[every("often", HOUR)]).await.unwrap_err();
    assert!(error.is_invalid(), "{error}");
    assert!(due(subject).await.is_empty());
}
