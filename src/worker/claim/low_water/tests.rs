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
fn the_first_look_is_a_sweep_and_so_is_any_that_is_cheap_and_not_in_a_hurry() {
    let mut low = LowWater::default();
    assert_eq!(low.marks(), Marks::default());
    low.learn(Marks::default(), &claimed(vec![]), 10, QUICK);
    assert_eq!(low.marks(), Marks::default());
}

#[test]
fn a_busy_claimer_goes_on_where_it_stood() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![job(7, Priority::Normal, at(50))]), 1, QUICK);
    let edge = Some(Mark { available_at: at(100) - SLACK, id: 0 });
    assert_eq!(low.marks(), [edge, edge, Some(Mark { available_at: at(50), id: 7 }), None]);
}

#[test]
fn at_the_live_edge_it_leaves_some_slack() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![job(7, Priority::Urgent, at(100))]), 1, QUICK);
    assert_eq!(low.marks()[0], Some(Mark { available_at: at(100) - SLACK, id: 0 }));
}

#[test]
fn a_look_that_found_all_moves_every_mark_to_now() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![job(7, Priority::Low, at(50))]), 2, Duration::from_secs(1));
    assert_eq!(low.marks(), [Some(Mark { available_at: at(100) - SLACK, id: 0 }); 4]);
}

const DEAR: Duration = Duration::from_millis(500);

#[test]
fn a_dear_sweep_is_followed_by_looks_back_that_take_their_share_of_the_time() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![]), 10, DEAR);
    assert_ne!(low.marks(), Marks::default());
    let near = low.look_back(0, None).unwrap();
    assert_eq!(near, [Some(Mark { available_at: at(100) - SLACK - NEAR, id: 0 }); 4], "a little is affordable at once");
    low.looked_back(near, Marks::default(), QUICK, 3);
    assert_eq!(low.look_back(0, None), None);
    let until = low.until_look_back(0).unwrap();
    assert!(until > Duration::from_secs(9), "{until:?}");
    low.stir();
    assert!(low.until_look_back(0).unwrap() <= EVERY);
}

#[test]
fn one_look_that_took_long_delays_no_other() {
    let mut low = LowWater::default();
    for (took, cheap) in [(QUICK, true), (DEAR, true), (DEAR, false)] {
        low.learn(Marks::default(), &claimed(vec![]), 10, took);
        assert_eq!(low.marks() == Marks::default(), cheap, "{took:?}");
    }
}

#[test]
fn what_a_look_back_finds_is_where_the_next_claim_starts() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![]), 10, DEAR);
    let late = Mark { available_at: at(42), id: 7 };
    low.looked_back(Marks::default(), [None, Some(late), None, None], DEAR, 3);
    let edge = Some(Mark { available_at: at(100) - SLACK, id: 0 });
    assert_eq!(low.marks(), [edge, Some(late), edge, edge]);
    low.looked_back(Marks::default(), [Some(Mark { available_at: at(101), id: 8 }); 4], DEAR, 3);
    assert_eq!(low.marks(), [edge, Some(late), edge, edge], "a mark never moves up by it");
}

#[test]
fn a_look_back_is_a_reason_to_claim_if_the_next_claim_looks_lower_for_it() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![]), 10, DEAR);
    let near = low.look_back(0, None).unwrap();
    assert!(!low.looked_back(near, Marks::default(), QUICK, 0), "nothing is there");
    assert!(low.looked_back(near, [None, None, None, Some(Mark { available_at: at(42), id: 7 })], QUICK, 0));
    assert!(low.looked_back(Marks::default(), Marks::default(), QUICK, 0), "a sweep is cheap again");
}

#[test]
fn what_a_look_back_finds_while_a_claim_is_under_way_is_where_the_next_one_starts() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![job(7, Priority::Normal, at(50))]), 1, DEAR);
    let (under_way, near) = (low.marks(), low.look_back(0, None).unwrap());
    let late = Some(Mark { available_at: at(42), id: 3 });
    low.looked_back(near, [late, None, None, None], DEAR, 0);
    let found = claimed(vec![job(8, Priority::Normal, at(51))]);
    low.learn(under_way, &found, 1, QUICK);
    let edge = Some(Mark { available_at: at(100) - SLACK, id: 0 });
    assert_eq!(low.marks(), [late, edge, Some(Mark { available_at: at(51), id: 8 }), None]);
    low.learn(low.marks(), &found, 1, QUICK);
    assert_eq!(low.marks()[0], edge, "that one has looked there");
}

#[test]
fn where_claims_have_gone_on_while_a_look_back_was_under_way_is_not_gone_over_again() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![job(7, Priority::Normal, at(50))]), 1, DEAR);
    let near = low.look_back(3, None).unwrap();
    let place = |id| Some(Mark { available_at: at(50), id });
    low.learn(low.marks(), &claimed(vec![job(9, Priority::Normal, at(50))]), 1, QUICK);
    low.looked_back(near, [None, None, place(8), None], QUICK, 3);
    assert_eq!(low.marks()[2], place(9), "the head as it was, which has been claimed since");
    low.looked_back(near, [None, None, place(6), None], QUICK, 3);
    look_again(&mut low, [None, None, place(6), None]);
    assert_eq!(low.marks()[2], place(6), "that one was left behind");
    low.near = None;
    let near = low.look_back(0, None).unwrap();
    low.learn(low.marks(), &claimed(vec![job(9, Priority::Normal, at(50))]), 1, QUICK);
    low.looked_back(near, [None, None, place(8), None], QUICK, 0);
    assert_eq!(low.marks()[2], place(8), "alone it can afford to look at what came late among them at once");
}

#[test]
fn what_claims_under_way_may_have_taken_was_not_left_behind() {
    let mut low = LowWater::default();
    let place = |id| Some(Mark { available_at: at(50), id });
    let claimed = |id| claimed(vec![job(id, Priority::Normal, at(50))]);
    low.learn(Marks::default(), &claimed(7), 1, DEAR);
    let under_way = low.marks();
    low.learn(low.marks(), &claimed(9), 1, QUICK);
    let near = low.look_back(0, Some(under_way)).unwrap();
    low.looked_back(near, [None, None, place(8), None], QUICK, 0);
    assert_eq!(low.marks()[2], place(9), "it may be among what another claim takes");
    low.looked_back(near, [None, None, place(6), None], QUICK, 0);
    assert_eq!(low.marks()[2], place(6), "no claim has looked there");
}

/// Looks once more for what a look back has seen, which finds these.
fn look_again(low: &mut LowWater, heads: Marks) {
    assert_eq!(low.look_back(3, None), None, "claims that are under way may not be over");
    low.doubt.as_mut().unwrap().since -= 2 * DEAR;
    let from = low.look_back(3, None).unwrap();
    low.looked_back(from, heads, QUICK, 3);
}

#[test]
fn what_others_may_just_be_claiming_was_left_behind_if_it_is_still_there_a_little_later() {
    let mut low = LowWater::default();
    let place = |id| Some(Mark { available_at: at(50), id });
    low.learn(Marks::default(), &claimed(vec![job(9, Priority::Normal, at(50))]), 1, DEAR);
    let (marks, near) = (low.marks(), low.look_back(3, None).unwrap());
    for (seen, later) in [(3, Some(5)), (4, None)] {
        low.looked_back(near, [None, None, place(seen), None], QUICK, 3);
        look_again(&mut low, [None, None, later.and_then(place), None]);
        assert_eq!(
            (low.marks(), low.doubt.is_none()),
            (marks, true),
            "it was claimed; the next one may be in its turn"
        );
    }
    low.looked_back(near, [None, None, place(3), None], QUICK, 3);
    low.learn(low.marks(), &claimed(vec![]), 1, DEAR);
    let from = low.look_back(3, None).unwrap();
    assert_eq!(from[2], place(3), "in a queue that is not full there is nothing to wait for");
    low.looked_back(from, [None, None, place(3), None], QUICK, 3);
    assert_eq!(low.marks()[2], place(3));
}

#[test]
fn a_full_queue_is_shared_with_those_who_work_it_too_unless_something_was_left_behind() {
    let mut low = LowWater::default();
    let next = |low: &mut LowWater, id, at| {
        low.learn(low.marks(), &claimed(vec![job(id, Priority::Normal, at)]), 1, DEAR);
    };
    assert!(!low.start(3).shared, "a sweep looks at everything");
    next(&mut low, 7, at(50));
    assert!(low.start(3).shared && !low.start(0).shared);
    let near = low.look_back(3, None).unwrap();
    let left = [None, None, Some(Mark { available_at: at(42), id: 3 }), None];
    low.looked_back(near, left, QUICK, 3);
    look_again(&mut low, left);
    assert!(!low.start(3).shared, "others are above it");
    next(&mut low, 3, at(42));
    assert!(!low.start(3).shared, "there may be more of them");
    next(&mut low, 9, at(51));
    assert!(low.start(3).shared);
    low.learn(low.marks(), &claimed(vec![]), 1, DEAR);
    assert!(!low.start(3).shared, "it is not full any more");
}

#[test]
fn when_marks_are_mistrusted_the_next_look_is_a_sweep() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &claimed(vec![]), 10, DEAR);
    low.forget();
    assert_eq!(low.marks(), Marks::default());
    assert_eq!((low.look_back(0, None), low.until_look_back(0)), (None, None));
}

#[test]
fn what_was_not_looked_at_moves_no_mark() {
    let mut low = LowWater::default();
    low.learn(Marks::default(), &Claimed::default(), 10, Duration::from_secs(1));
    assert_eq!(low.marks, Marks::default());
}
