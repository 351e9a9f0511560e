//! Settling: the states that jobs get after their attempts.

use std::time::Duration;

use super::subject::{HOUR, Subject, failed, failure, job, snoozed};
use super::{Standing, behaviours};
use crate::driver::{Ending, FailureReason};
use crate::job::{JobState, Payload, Reservation};

behaviours![
    every_ending_does_what_it_says,
    only_the_standing_reservation_settles,
    a_retry_waits_for_its_delay_and_counts_on,
    a_released_job_keeps_its_place,
];

async fn every_ending_does_what_it_says(subject: &Subject) {
    use FailureReason::{Failed, Permanent};
    subject.register(1).await;
    let endings = [
        (Ending::Completed(Some(Payload::encode(&7).unwrap())), Standing::new(JobState::Completed, 1, 0)),
        (Ending::Cancelled, Standing::new(JobState::Cancelled, 1, 0)),
        (snoozed(Duration::ZERO), Standing::new(JobState::Ready, 1, 0)),
        (snoozed(HOUR), Standing::new(JobState::Delayed, 1, 0)),
        (Ending::Released, Standing::new(JobState::Ready, 1, 0)),
        (failed(Failed, Duration::ZERO), Standing::new(JobState::Ready, 1, 1)),
        (Ending::Dead(failure(Permanent)), Standing::new(JobState::Dead, 1, 1).reason(Some(Permanent))),
    ];
    for (ending, _) in &endings {
        subject.enqueue(job(&format!("{ending:?}"))).await;
    }
    let jobs = subject.claim(1, 10).await;
    for (job, (ending, _)) in jobs.iter().zip(&endings) {
        assert_eq!(subject.standing(job.reservation.id).await, Standing::new(JobState::Running, 1, 0));
        assert!(subject.settle(job.reservation, ending.clone()).await);
    }
    for (job, (ending, standing)) in jobs.iter().zip(&endings) {
        assert_eq!(subject.standing(job.reservation.id).await, *standing, "{ending:?}");
    }
}

async fn only_the_standing_reservation_settles(subject: &Subject) {
    subject.register(1).await;
    let id = subject.enqueue(job("x")).await;
    let good = subject.claim_one(1).await.reservation;
    let wrong = [
        Reservation { id: good.id + 1, ..good },
        Reservation { worker: 2, ..good },
        Reservation { attempt: good.attempt + 1, ..good },
        Reservation { reserved_at: good.reserved_at + Duration::from_micros(1), ..good },
    ];
    for reservation in wrong {
        assert!(!subject.settle(reservation, Ending::Completed(None)).await, "{reservation:?}");
    }
    assert_eq!(subject.standing(id).await, Standing::new(JobState::Running, 1, 0));
    assert!(subject.settle(good, Ending::Completed(None)).await);
    assert!(!subject.settle(good, Ending::Dead(failure(FailureReason::Failed))).await, "an ending counts once");
    assert_eq!(subject.standing(id).await, Standing::new(JobState::Completed, 1, 0));
}

async fn a_retry_waits_for_its_delay_and_counts_on(subject: &Subject) {
    subject.register(1).await;
    subject.enqueue(job("x")).await;
    for (attempt, delay) in [(1, Duration::ZERO), (2, Duration::from_secs(600))] {
        let job = subject.claim_one(1).await;
        assert_eq!((job.reservation.attempt, job.failures), (attempt, attempt as u32 - 1));
        subject.settle(job.reservation, failed(FailureReason::TimedOut, delay)).await;
    }
    let due_in = subject.due_in(1).await.unwrap();
    assert!((590..=600).contains(&due_in.as_secs()), "{due_in:?}");
}

async fn a_released_job_keeps_its_place(subject: &Subject) {
    subject.register(1).await;
    let first = subject.enqueue(job("first")).await;
    subject.enqueue(job("second")).await;
    let claimed = subject.claim_one(1).await;
    assert_eq!(claimed.reservation.id, first);
    assert!(subject.settle(claimed.reservation, Ending::Released).await);
    let again = subject.claim_one(1).await;
    assert_eq!((again.reservation.id, again.reservation.attempt), (first, 2));
    assert_eq!((again.available_at, again.failures), (claimed.available_at, 0));
}
