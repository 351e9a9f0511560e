//! How many jobs a claim asks for: as many as there is room for, unless jobs are large or the link to the store is
//! slow.

use std::time::Duration;

use crate::job::ReservedJob;

/// A claim of more jobs brings nothing more, but takes longer until the first of them starts.
const LARGEST_CLAIM: usize = 500;
/// The same where other workers claim from the same full queue, and each claim costs more.
const LARGEST_BESIDE_OTHERS: usize = 1000;
/// A claim is to bring no more than this, nor is more to be claimed ahead of free slots: 16 MiB. A link of 8 MB/s
/// takes 2 s for it.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;
/// The first claim asks for no more, and so does one after a claim that was given up: nothing is known of the jobs to
/// come, and of the link.
const FIRST_CLAIM: usize = 16;
/// Each claim that has brought jobs lets the next one ask for this many times as many.
const GROWTH: usize = 4;
/// An error that comes sooner says nothing of the size of the answer.
const LONG: Duration = Duration::from_secs(1);

/// What a claimer has learned of its claims' answers.
#[derive(Debug)]
pub(crate) struct ClaimSize {
    most: usize,
    /// How large jobs have been of late; falls by half with each claim of smaller ones.
    bytes_per_job: usize,
}

impl Default for ClaimSize {
    fn default() -> ClaimSize {
        ClaimSize { most: FIRST_CLAIM, bytes_per_job: 0 }
    }
}

impl ClaimSize {
    /// How many to ask for where there is room for so many.
    pub(crate) fn of(&self, room: usize, beside_others: bool) -> usize {
        let largest = if beside_others { LARGEST_BESIDE_OTHERS } else { LARGEST_CLAIM };
        room.min(largest).min(self.most).min(self.affordable())
    }

    /// How many jobs of the size that they have had of late one answer may hold; at least one.
    pub(crate) fn affordable(&self) -> usize {
        (LARGEST_ANSWER / self.bytes_per_job.max(1)).max(1)
    }

    /// A claim has brought these.
    pub(crate) fn came(&mut self, jobs: &[ReservedJob]) {
        let size = |job: &ReservedJob| {
            job.payload.as_bytes().len() + job.metadata.as_ref().map_or(0, |json| json.as_bytes().len())
        };
        if let Some(average) = jobs.iter().map(size).sum::<usize>().checked_div(jobs.len()) {
            self.bytes_per_job = average.max(self.bytes_per_job / 2);
            self.most = (self.most * GROWTH).min(LARGEST_BESIDE_OTHERS);
        }
    }

    /// A claim of so many has failed after this time.
    pub(crate) fn failed(&mut self, wanted: usize, after: Duration) {
        if after >= LONG {
            self.most = (wanted / 2).clamp(1, FIRST_CLAIM);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::job::{Payload, Priority, Reservation};

    fn jobs(count: usize, bytes: usize) -> Vec<ReservedJob> {
        let now = SystemTime::now();
        let job = ReservedJob {
            reservation: Reservation { id: 1, worker: 1, attempt: 1, reserved_at: now, hint: 0 },
            queue: "q".into(),
            kind: "k".into(),
            payload: Payload::encode(&"x".repeat(bytes - 2)).unwrap(),
            priority: Priority::Normal,
            failures: 0,
            max_attempts: 1,
            available_at: now,
            created_at: now,
            key: None,
            tags: vec![],
            metadata: None,
            timeout: None,
            cancel_requested: false,
            undecodable: None,
        };
        vec![job; count]
    }

    /// After claims that have brought small jobs.
    fn at_work() -> ClaimSize {
        let mut claim_size = ClaimSize::default();
        (0..7).for_each(|_| claim_size.came(&jobs(1, 10)));
        claim_size
    }

    #[test]
    fn the_first_claim_asks_for_few_and_each_for_four_times_as_many_as_the_one_before() {
        let mut claim_size = ClaimSize::default();
        for most in [16, 64, 100] {
            assert_eq!(claim_size.of(100, false), most);
            claim_size.came(&jobs(1, 10));
        }
    }

    #[test]
    fn a_claim_asks_for_all_there_is_room_for_up_to_five_hundred_and_beside_others_a_thousand() {
        let claim_size = at_work();
        assert_eq!((claim_size.of(64, false), claim_size.of(2000, false), claim_size.of(2000, true)), (64, 500, 1000));
    }

    #[test]
    fn after_a_claim_that_was_given_up_few_are_asked_for_and_four_times_as_many_after_each_that_was_not() {
        let mut claim_size = at_work();
        claim_size.failed(100, Duration::from_millis(50));
        assert_eq!(claim_size.of(100, false), 100, "the server was away");
        for most in [16, 8, 4, 2, 1, 1] {
            claim_size.failed(claim_size.of(100, false), Duration::from_secs(5));
            assert_eq!(claim_size.of(100, false), most);
        }
        for most in [4, 16, 64] {
            claim_size.came(&jobs(1, 10));
            assert_eq!(claim_size.of(100, false), most);
        }
    }

    #[test]
    fn of_large_jobs_no_more_are_asked_for_than_sixteen_mebibytes_hold() {
        let mut claim_size = at_work();
        claim_size.came(&jobs(2, 1024 * 1024));
        assert_eq!((claim_size.of(100, false), claim_size.affordable()), (16, 16));
        claim_size.came(&jobs(2, 17 * 1024 * 1024));
        assert_eq!(claim_size.of(100, false), 1);
        claim_size.came(&[]);
        assert_eq!(claim_size.of(100, false), 1, "no jobs tell nothing of their size");
        for _ in 0..10 {
            claim_size.came(&jobs(1, 10));
        }
        assert_eq!(claim_size.of(100, false), 100);
    }
}
