//! The number of jobs that a claim asks for: one per free slot, but fewer if jobs are large or the link to the store is
//! slow.

use std::time::Duration;

use crate::job::ReservedJob;

/// A claim asks for at most 500 jobs: a larger claim is no more efficient, and its first job starts later.
const LARGEST_CLAIM: usize = 500;
/// If other workers claim from the same full queue, each claim costs more. Larger claims are then more efficient, so a
/// claim may ask for up to 1000 jobs.
const LARGEST_BESIDE_OTHERS: usize = 1000;
/// One claim should return at most 16 MiB, and at most 16 MiB of jobs are claimed ahead. A link of 8 MB/s takes 2 s to
/// transfer 16 MiB.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;
/// The first claim asks for at most 16 jobs: the claimer does not know yet how large the jobs are and how fast the link
/// is. If a claim fails after 1 s or more, the next claim asks for at most 16 jobs too: the answer may have been too
/// large for the link.
const FIRST_CLAIM: usize = 16;
/// After each claim that returned jobs, the next claim may ask for four times as many.
const CLAIM_GROWTH: usize = 4;
/// If a claim fails within 1 s, a large answer is not the reason.
const SOON: Duration = Duration::from_secs(1);

/// The facts that a claimer has learned from the answers to its claims.
#[derive(Debug)]
pub(crate) struct ClaimSize {
    most: usize,
    /// The average size of recent jobs. One claim of smaller jobs lowers this average to half at most.
    bytes_per_job: usize,
}

impl Default for ClaimSize {
    fn default() -> ClaimSize {
        ClaimSize { most: FIRST_CLAIM, bytes_per_job: 0 }
    }
}

impl ClaimSize {
    /// Returns the number of jobs to ask for if the slots can take `room` jobs. `beside_others`: other workers claim
    /// from the same full queue.
    pub(crate) fn of(&self, room: usize, beside_others: bool) -> usize {
        let largest = if beside_others { LARGEST_BESIDE_OTHERS } else { LARGEST_CLAIM };
        room.min(largest).min(self.most).min(self.affordable())
    }

    /// Returns the number of jobs of the recent average size that one answer may hold; at least 1.
    pub(crate) fn affordable(&self) -> usize {
        (LARGEST_ANSWER / self.bytes_per_job.max(1)).max(1)
    }

    /// Learns from the jobs that a claim returned.
    pub(crate) fn learn(&mut self, jobs: &[ReservedJob]) {
        let size = |job: &ReservedJob| {
            job.payload.as_bytes().len() + job.metadata.as_ref().map_or(0, |json| json.as_bytes().len())
        };
        if let Some(average) = jobs.iter().map(size).sum::<usize>().checked_div(jobs.len()) {
            self.bytes_per_job = average.max(self.bytes_per_job / 2);
            self.most = (self.most * CLAIM_GROWTH).min(LARGEST_BESIDE_OTHERS);
        }
    }

    /// Learns that a claim that asked for `wanted` jobs failed after the time `after`.
    pub(crate) fn learn_failure(&mut self, wanted: usize, after: Duration) {
        if after >= SOON {
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

    /// The state after seven claims of small jobs.
    fn after_small_jobs() -> ClaimSize {
        let mut claim_size = ClaimSize::default();
        (0..7).for_each(|_| claim_size.learn(&jobs(1, 10)));
        claim_size
    }

    #[test]
    fn claims_grow_fourfold_from_16_jobs() {
        let mut claim_size = ClaimSize::default();
        for most in [16, 64, 100] {
            assert_eq!(claim_size.of(100, false), most);
            claim_size.learn(&jobs(1, 10));
        }
    }

    #[test]
    fn a_claim_asks_for_500_jobs_at_most_and_for_1000_beside_others() {
        let claim_size = after_small_jobs();
        assert_eq!(claim_size.of(64, false), 64);
        assert_eq!(claim_size.of(2000, false), 500);
        assert_eq!(claim_size.of(2000, true), 1000);
    }

    #[test]
    fn a_claim_asks_for_fewer_jobs_after_claims_that_were_given_up() {
        let mut claim_size = after_small_jobs();
        claim_size.learn_failure(100, Duration::from_millis(50));
        assert_eq!(claim_size.of(100, false), 100, "the server could not be reached");
        for most in [16, 8, 4, 2, 1, 1] {
            claim_size.learn_failure(claim_size.of(100, false), Duration::from_secs(5));
            assert_eq!(claim_size.of(100, false), most);
        }
        for most in [4, 16, 64] {
            claim_size.learn(&jobs(1, 10));
            assert_eq!(claim_size.of(100, false), most);
        }
    }

    #[test]
    fn a_claim_of_large_jobs_asks_for_16_mebibytes_at_most() {
        let mut claim_size = after_small_jobs();
        claim_size.learn(&jobs(2, 1024 * 1024));
        assert_eq!((claim_size.of(100, false), claim_size.affordable()), (16, 16));
        claim_size.learn(&jobs(2, 17 * 1024 * 1024));
        assert_eq!(claim_size.of(100, false), 1);
        claim_size.learn(&[]);
        assert_eq!(claim_size.of(100, false), 1, "a claim without jobs changes nothing");
        for _ in 0..10 {
            claim_size.learn(&jobs(1, 10));
        }
        assert_eq!(claim_size.of(100, false), 100);
    }
}
