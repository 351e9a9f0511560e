use std::time::SystemTime;

use super::*;
use crate::job::{Payload, Priority, Reservation, ReservedJob};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn job(id: i64, priority: Priority, available_at: SystemTime) -> ReservedJob {
    ReservedJob {
        reservation: Reservation { id, worker: 1, attempt: 1, reserved_at: at(100), hint: 0 },
        queue: "q".into(),
        kind: "k".into(),
        payload: Payload::encode(&()).unwrap(),
        priority,
        failures: 0,
        max_attempts: 1,
        available_at,
        created_at: available_at,
        key: None,
        tags: vec![],
        metadata: None,
        timeout: None,
        cancel_requested: false,
        undecodable: None,
    }
}

fn claimed(jobs: Vec<ReservedJob>) -> Claimed {
    Claimed { jobs, looked_at: Some(at(100)), ..Claimed::default() }
}

const QUICK: Duration = Duration::from_millis(1);

#[test]
fn the_first_claim_is_a_sweep_and_so_is_one_after_a_cheap_sweep() {
    let mut low = LowWater::default();
    assert_eq!(low.marks(), Marks::default());
    low.learn(Marks::default(), &claimed(vec![]), 10, QUICK);
    assert_eq!(low.marks(), Marks::default());
}

#[test]
fn a_busy_claimer_continues_where_its_last_claim_ended() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![job(7, Priority::Normal, at(50))]), 1, QUICK);
    let edge = Some(Mark { available_at: at(100) - SLACK, id: 0 });
    assert_eq!(low.marks(), [edge, edge, Some(Mark { available_at: at(50), id: 7 }), None]);
}

#[test]
fn a_claim_starts_50_ms_below_a_recent_place() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![job(7, Priority::Urgent, at(100))]), 1, QUICK);
    assert_eq!(low.marks()[0], Some(Mark { available_at: at(100) - SLACK, id: 0 }));
}

#[test]
fn a_claim_of_all_due_jobs_moves_every_mark_to_the_present() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![job(7, Priority::Low, at(50))]), 2, Duration::from_secs(1));
    assert_eq!(low.marks(), [Some(Mark { available_at: at(100) - SLACK, id: 0 }); 4]);
}

const SLOW: Duration = Duration::from_millis(500);

#[test]
fn after_a_slow_sweep_looks_back_take_a_twentieth_of_the_time() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![]), 10, SLOW);
    assert_ne!(low.marks(), Marks::default());
    let near = low.next_look_back(0, None).unwrap();
    assert_eq!(
        near,
        [Some(Mark { available_at: at(100) - SLACK - NEAR, id: 0 }); 4],
        "a look 2 s below the marks is affordable at once"
    );
    low.learn_heads(near, Marks::default(), QUICK, 3);
    assert_eq!(low.next_look_back(0, None), None);
    let until = low.until_look_back(0).unwrap();
    assert!(until > Duration::from_secs(9), "{until:?}");
    low.jobs_may_have_appeared();
    assert!(low.until_look_back(0).unwrap() <= LOOK_BACK_EVERY);
}

#[test]
fn a_single_slow_sweep_does_not_end_sweeps() {
    let mut low = LowWater::default();
    for (took, cheap) in [(QUICK, true), (SLOW, true), (SLOW, false)] {
        low.learn(Marks::default(), &claimed(vec![]), 10, took);
        assert_eq!(low.marks() == Marks::default(), cheap, "{took:?}");
    }
}

#[test]
fn the_next_claim_starts_at_the_job_that_a_look_back_found() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![]), 10, SLOW);
    let late = Mark { available_at: at(42), id: 7 };
    low.learn_heads(Marks::default(), [None, Some(late), None, None], SLOW, 3);
    let edge = Some(Mark { available_at: at(100) - SLACK, id: 0 });
    assert_eq!(low.marks(), [edge, Some(late), edge, edge]);
    low.learn_heads(Marks::default(), [Some(Mark { available_at: at(101), id: 8 }); 4], SLOW, 3);
    assert_eq!(low.marks(), [edge, Some(late), edge, edge], "a look back moves no mark up");
}

#[test]
fn a_look_back_is_a_reason_to_claim_if_it_lowers_a_mark() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![]), 10, SLOW);
    let near = low.next_look_back(0, None).unwrap();
    assert!(!low.learn_heads(near, Marks::default(), QUICK, 0), "no job is there");
    assert!(low.learn_heads(near, [None, None, None, Some(Mark { available_at: at(42), id: 7 })], QUICK, 0));
    assert!(
        low.learn_heads(Marks::default(), Marks::default(), QUICK, 0),
        "the last sweep was cheap, so the next claim is one"
    );
}

#[test]
fn a_claim_under_way_does_not_undo_what_a_look_back_found() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![job(7, Priority::Normal, at(50))]), 1, SLOW);
    let (under_way, near) = (low.marks(), low.next_look_back(0, None).unwrap());
    let late = Some(Mark { available_at: at(42), id: 3 });
    low.learn_heads(near, [late, None, None, None], SLOW, 0);
    let found = claimed(vec![job(8, Priority::Normal, at(51))]);
    low.learn(under_way, &found, 1, QUICK);
    let edge = Some(Mark { available_at: at(100) - SLACK, id: 0 });
    assert_eq!(low.marks(), [late, edge, Some(Mark { available_at: at(51), id: 8 }), None]);
    low.learn(low.marks(), &found, 1, QUICK);
    assert_eq!(low.marks()[0], edge, "the last claim has looked there");
}

#[test]
fn a_job_claimed_during_a_look_back_was_not_left_behind() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![job(7, Priority::Normal, at(50))]), 1, SLOW);
    let near = low.next_look_back(3, None).unwrap();
    let place = |id| Some(Mark { available_at: at(50), id });
    low.learn(low.marks(), &claimed(vec![job(9, Priority::Normal, at(50))]), 1, QUICK);
    low.learn_heads(near, [None, None, place(8), None], QUICK, 3);
    assert_eq!(low.marks()[2], place(9), "the head when the look back began, which was claimed since");
    low.learn_heads(near, [None, None, place(6), None], QUICK, 3);
    look_again(&mut low, [None, None, place(6), None]);
    assert_eq!(low.marks()[2], place(6), "job 6 was left behind");
    low.last_near_look = None;
    let near = low.next_look_back(0, None).unwrap();
    low.learn(low.marks(), &claimed(vec![job(9, Priority::Normal, at(50))]), 1, QUICK);
    low.learn_heads(near, [None, None, place(8), None], QUICK, 0);
    assert_eq!(low.marks()[2], place(8), "without other workers, the next claim starts there at once");
}

#[test]
fn a_job_that_a_claim_under_way_may_take_was_not_left_behind() {
    let mut low = LowWater::default();
    let place = |id| Some(Mark { available_at: at(50), id });
    let claimed = |id| claimed(vec![job(id, Priority::Normal, at(50))]);
    low.learn(Marks::default(), &claimed(7), 1, SLOW);
    let under_way = low.marks();
    low.learn(low.marks(), &claimed(9), 1, QUICK);
    let near = low.next_look_back(0, Some(under_way)).unwrap();
    low.learn_heads(near, [None, None, place(8), None], QUICK, 0);
    assert_eq!(low.marks()[2], place(9), "the claim under way may take it");
    low.learn_heads(near, [None, None, place(6), None], QUICK, 0);
    assert_eq!(low.marks()[2], place(6), "no claim has looked there");
}

/// Makes the second look back. `heads`: the first due jobs that it finds.
fn look_again(low: &mut LowWater, heads: Marks) {
    assert_eq!(low.next_look_back(3, None), None, "claims under way may still run");
    low.second_look.as_mut().unwrap().seen_at -= 2 * SLOW;
    let from = low.next_look_back(3, None).unwrap();
    low.learn_heads(from, heads, QUICK, 3);
}

#[test]
fn a_job_seen_twice_was_left_behind_by_other_workers() {
    let mut low = LowWater::default();
    let place = |id| Some(Mark { available_at: at(50), id });
    low.learn(Marks::default(), &claimed(vec![job(9, Priority::Normal, at(50))]), 1, SLOW);
    let (marks, near) = (low.marks(), low.next_look_back(3, None).unwrap());
    for (seen, later) in [(3, Some(5)), (4, None)] {
        low.learn_heads(near, [None, None, place(seen), None], QUICK, 3);
        look_again(&mut low, [None, None, later.and_then(place), None]);
        assert!(low.second_look.is_none());
        assert_eq!(low.marks(), marks, "the job was claimed, and job 5 may be claimed too");
    }
    low.learn_heads(near, [None, None, place(3), None], QUICK, 3);
    low.learn(low.marks(), &claimed(vec![]), 1, SLOW);
    let from = low.next_look_back(3, None).unwrap();
    assert_eq!(from[2], place(3), "in a queue that is not full, a second look need not wait");
    low.learn_heads(from, [None, None, place(3), None], QUICK, 3);
    assert_eq!(low.marks()[2], place(3));
}

#[test]
fn claims_of_a_full_queue_are_shared_unless_a_job_was_left_behind() {
    let mut low = LowWater::default();
    let next = |low: &mut LowWater, id, at| {
        low.learn(low.marks(), &claimed(vec![job(id, Priority::Normal, at)]), 1, SLOW);
    };
    assert!(!low.start(3).shared, "a sweep is not shared");
    next(&mut low, 7, at(50));
    assert!(low.start(3).shared && !low.start(0).shared);
    let near = low.next_look_back(3, None).unwrap();
    let left = [None, None, Some(Mark { available_at: at(42), id: 3 }), None];
    low.learn_heads(near, left, QUICK, 3);
    look_again(&mut low, left);
    assert!(!low.start(3).shared, "the claims of other workers are above that job");
    next(&mut low, 3, at(42));
    assert!(!low.start(3).shared, "more jobs may have been left behind");
    next(&mut low, 9, at(51));
    assert!(low.start(3).shared);
    low.learn(low.marks(), &claimed(vec![]), 1, SLOW);
    assert!(!low.start(3).shared, "the queue is not full any more");
}

#[test]
fn after_forgetting_the_marks_the_next_claim_is_a_sweep() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![]), 10, SLOW);
    low.forget();
    assert_eq!(low.marks(), Marks::default());
    assert_eq!((low.next_look_back(0, None), low.until_look_back(0)), (None, None));
}

#[test]
fn a_claim_that_did_not_look_moves_no_mark() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &Claimed::default(), 10, Duration::from_secs(1));
    assert_eq!(low.marks, Marks::default());
}
