//! A model of linked jobs: all interleavings of sessions that end, apply, add, seal, cancel and revive.
//!
//! With all rules, each job that waits starts once, and not before the jobs that it waits for have ended. Without any
//! one rule, some interleaving does harm. The rules are those of `migrations/V11__linked_jobs.sql` and
//! `migrations/V13__workflows.sql`.

mod database;
mod sessions;
mod workflows;

use std::collections::HashMap;

use database::{A, B, Decision, Harm, Row, Rows, State, WAITER, WaitsFor, Workflow, World, state_of};
use sessions::{Move, Role, step};

/// The rules of linked jobs. The test drops each rule in turn.
#[derive(Clone, Copy)]
pub struct Rules {
    /// The end of a job is noted in the transaction that deletes the job.
    note_with_delete: bool,
    /// `needs` is lowered from its value in the locked row, not from its value in the snapshot.
    lower_locked: bool,
    /// Whether a job starts is decided in a later statement than the one that lowers `needs`.
    decide_later: bool,
    /// An applier locks an end until it commits.
    lock_ends: bool,
    /// An end stays until each job that waits for it is lowered. An applier skips the jobs that others have locked.
    keep_unapplied: bool,
    /// A met or skipped dependency never changes.
    keep_met: bool,
    /// An add locks the prerequisite until it commits.
    lock_prerequisite: bool,
    /// An add marks the prerequisite as linked: the end of any other job is not noted.
    mark_prerequisite: bool,
    /// An add looks for the prerequisite in the direction in which jobs move.
    look_forward: bool,
    /// An add that has not found the prerequisite looks once more.
    look_twice: bool,
    /// An add to a job that has ended notes the end once more.
    note_again: bool,
    /// An add does not take a death from the noted ends: the job may have been revived.
    take_no_death: bool,
    /// Whether a job starts asks the seal of its workflow too.
    ask_seal: bool,
    /// The seal starts the jobs whose dependencies are decided.
    settle_at_seal: bool,
    /// An add that lets a job wait for another one fails if the job has started.
    refuse_started: bool,
    /// An applier asks for `cancelling` before it starts a job.
    ask_to_start: bool,
    /// An applier locks the workflow of the job that has ended.
    lock_to_apply: bool,
    /// An add locks the workflow before it asks for `cancelling` and for the seal.
    lock_to_add: bool,
    /// An add locks live and dead jobs first, and the workflow after them.
    lock_jobs_first: bool,
    /// An add locks blocked jobs after the workflow.
    lock_blocked_last: bool,
    /// A revive notes `revived` before it looks whether the death was acted on.
    note_revival_first: bool,
    /// As long as a job is dead, the dependencies on its death are not forgotten.
    keep_acted_on: bool,
    /// After a revive, a cancel of the workflow passes the jobs once more.
    pass_revived: bool,
}

const ALL: Rules = Rules {
    note_with_delete: true,
    lower_locked: true,
    decide_later: true,
    lock_ends: true,
    keep_unapplied: true,
    keep_met: true,
    lock_prerequisite: true,
    mark_prerequisite: true,
    look_forward: true,
    look_twice: true,
    note_again: true,
    take_no_death: true,
    ask_seal: true,
    settle_at_seal: true,
    refuse_started: true,
    ask_to_start: true,
    lock_to_apply: true,
    lock_to_add: true,
    lock_jobs_first: true,
    lock_blocked_last: true,
    note_revival_first: true,
    keep_acted_on: true,
    pass_revived: true,
};

/// Sessions that run at the same time.
struct Scenario {
    /// The rows at the start: A, B, the waiter, the ends of A and B, the dependencies on A and B, the workflow.
    rows: Rows,
    waits_for: WaitsFor,
    roles: &'static [Role],
    /// Returns true if the committed rows are as the sessions should leave them.
    is_done: fn(&Rows) -> bool,
}

const COMPLETE: &[Move] = &[Move::Complete];
const COME_BACK: &[Move] = &[Move::Die, Move::Revive, Move::Complete];
const LIVE: Row = Row::Live { linked: true };
const OPEN: Row = Row::Dependency(Decision::Open);
const NONE: Row = Row::Missing;

fn started(rows: &Rows) -> bool {
    rows[WAITER] == LIVE
}

fn is_cancelled(rows: &Rows) -> bool {
    state_of(rows) == State::Cancelled
}

const fn workflow(sealed: bool) -> Row {
    Row::Workflow(Workflow { state: State::Running, sealed, passed: 0, outcomes: [None; 2] })
}

/// Two prerequisites end at the same time, one of them after it has died and was revived.
const TWO_ENDS: Scenario = Scenario {
    rows: [LIVE, LIVE, Row::Blocked { needs: 2 }, NONE, NONE, OPEN, OPEN, NONE],
    waits_for: WaitsFor::Completed,
    roles: &[Role::Life(A, COME_BACK), Role::Life(B, COMPLETE), Role::Apply, Role::Apply],
    is_done: started,
};

/// A prerequisite dies, is revived and completes, and a job waits for any end of it.
const REVIVED_PREREQUISITE: Scenario = Scenario {
    rows: [LIVE, LIVE, Row::Blocked { needs: 2 }, NONE, NONE, OPEN, OPEN, NONE],
    waits_for: WaitsFor::Any,
    roles: &[Role::Life(A, COME_BACK), Role::Life(B, COMPLETE), Role::Apply],
    is_done: started,
};

/// A job is added that waits for a job that ends at the same time.
const ADD: Scenario = Scenario {
    rows: [Row::Live { linked: false }, NONE, NONE, NONE, NONE, NONE, NONE, NONE],
    waits_for: WaitsFor::Completed,
    roles: &[Role::AddWaiter, Role::Life(A, COMPLETE), Role::Apply, Role::Apply],
    is_done: started,
};

/// A job is added that waits for a job that moves from table to table at the same time.
const ADD_TO_MOVING: Scenario = Scenario {
    rows: [Row::Blocked { needs: 0 }, NONE, NONE, NONE, NONE, NONE, NONE, NONE],
    waits_for: WaitsFor::Completed,
    roles: &[
        Role::AddWaiter,
        Role::Life(A, &[Move::Start, Move::Die, Move::Revive, Move::Complete]),
        Role::Apply,
        Role::Apply,
    ],
    is_done: started,
};

/// A workflow is filled in two transactions and sealed, while its first job ends.
const FILL: Scenario = Scenario {
    rows: [LIVE, NONE, Row::Blocked { needs: 1 }, NONE, NONE, OPEN, NONE, workflow(false)],
    waits_for: WaitsFor::Completed,
    roles: &[Role::AddBefore, Role::Seal, Role::Life(A, COMPLETE), Role::Life(B, COMPLETE), Role::Apply, Role::Apply],
    is_done: started,
};

/// A workflow is cancelled while it is filled and sealed.
const FILL_AND_CANCEL: Scenario = Scenario {
    roles: &[
        Role::AddBefore,
        Role::Seal,
        Role::Cancel,
        Role::CancelMembers,
        Role::Life(A, COMPLETE),
        Role::Life(B, COMPLETE),
        Role::Apply,
        Role::Apply,
    ],
    is_done: is_cancelled,
    ..FILL
};

/// As before, and one completed prerequisite is enough.
const FILL_FOR_FIRST: Scenario = Scenario { waits_for: WaitsFor::FirstCompleted, ..FILL };

/// A job is added to a workflow that another session seals at the same time.
const ADD_AND_SEAL: Scenario = Scenario {
    rows: [LIVE, NONE, NONE, NONE, NONE, NONE, NONE, workflow(false)],
    roles: &[Role::AddWaiter, Role::Seal, Role::Life(A, COMPLETE), Role::Apply, Role::Apply],
    ..FILL
};

/// A job that waits for the seal alone is added while another session seals.
const ADD_READY_AND_SEAL: Scenario = Scenario { roles: &[Role::AddReady, Role::Seal], ..ADD_AND_SEAL };

/// A job is added that waits for a job whose handler completes it and adds another one in one transaction.
const ADD_BY_HANDLER: Scenario = Scenario {
    rows: [LIVE, NONE, NONE, NONE, NONE, NONE, NONE, workflow(true)],
    waits_for: WaitsFor::Completed,
    roles: &[Role::AddWaiter, Role::CompleteAndAdd, Role::Apply],
    is_done: |rows| started(rows) && rows[B] == LIVE,
};

/// A job of a sealed workflow is to wait for one more job, and may start at the same time.
const ADD_BEFORE: Scenario = Scenario {
    rows: [LIVE, NONE, Row::Blocked { needs: 1 }, NONE, NONE, OPEN, NONE, workflow(true)],
    waits_for: WaitsFor::Completed,
    roles: &[Role::AddBefore, Role::Life(A, COMPLETE), Role::Life(B, COMPLETE), Role::Apply, Role::Apply],
    is_done: started,
};

/// A workflow is cancelled while a prerequisite ends.
const CANCEL: Scenario = Scenario {
    rows: [LIVE, NONE, Row::Blocked { needs: 1 }, NONE, NONE, OPEN, NONE, workflow(true)],
    waits_for: WaitsFor::Completed,
    roles: &[Role::Cancel, Role::CancelMembers, Role::Life(A, COMPLETE), Role::Apply, Role::Apply],
    is_done: is_cancelled,
};

/// A job is added to a workflow that is cancelled at the same time.
const ADD_AND_CANCEL: Scenario = Scenario {
    rows: [LIVE, NONE, NONE, NONE, NONE, NONE, NONE, workflow(true)],
    roles: &[Role::AddWaiter, Role::Cancel, Role::CancelMembers, Role::Life(A, COMPLETE), Role::Apply],
    ..CANCEL
};

/// A workflow is cancelled while one of its jobs dies and is revived.
const REVIVE_AND_CANCEL: Scenario = Scenario {
    rows: [LIVE, NONE, NONE, NONE, NONE, NONE, NONE, workflow(true)],
    roles: &[Role::Cancel, Role::CancelMembers, Role::Life(A, &[Move::Die, Move::Revive]), Role::Apply],
    // A job that is revived after the end of the workflow runs.
    is_done: |rows| is_cancelled(rows) || (state_of(rows) == State::Running && rows[A] == LIVE),
    ..CANCEL
};

/// A job dies and is revived, and another job waits for its death.
const COMPENSATION: Scenario = Scenario {
    rows: [LIVE, NONE, Row::Blocked { needs: 1 }, NONE, NONE, OPEN, NONE, NONE],
    waits_for: WaitsFor::Dead,
    roles: &[Role::Life(A, COME_BACK), Role::CompleteWaiter, Role::Apply, Role::Apply],
    is_done: |rows| matches!(rows[WAITER], Row::Finished(_)),
};

/// A job that waits for a death is added while the other job dies and is revived.
const ADD_COMPENSATION: Scenario = Scenario {
    rows: ADD.rows,
    roles: &[Role::AddWaiter, Role::Life(A, COME_BACK), Role::CompleteWaiter, Role::Apply, Role::Apply],
    ..COMPENSATION
};

/// As before, but the job dies and is revived twice, and others wait for it already.
const ADD_TO_REVIVED: Scenario = Scenario {
    rows: [Row::Blocked { needs: 0 }, NONE, NONE, NONE, NONE, NONE, NONE, NONE],
    roles: &[
        Role::AddWaiter,
        Role::Life(A, &[Move::Start, Move::Die, Move::Revive, Move::Die, Move::Revive, Move::Die]),
        Role::CompleteWaiter,
        Role::Apply,
    ],
    // The add may be refused.
    is_done: |rows| matches!(rows[WAITER], Row::Finished(_) | Row::Missing),
    ..COMPENSATION
};

/// Visits every world that the sessions can come to. Returns the number of worlds, or a world with harm.
fn explore(scenario: &Scenario, rules: Rules) -> Result<usize, (Harm, Box<World>)> {
    let first = World::new(scenario.rows, scenario.waits_for, scenario.roles.len());
    let mut places = HashMap::from([(first.clone(), 0)]);
    let mut worlds = vec![first];
    let mut before: Vec<Vec<usize>> = vec![vec![]];
    let mut at = 0;
    while let Some(world) = worlds.get(at).cloned() {
        if let Some(harm) = world.harm {
            return Err((harm, Box::new(world)));
        }
        for me in 0..scenario.roles.len() {
            for (next, is_crash) in [(step(&world, me, scenario.roles, rules), false), (world.crash(me), true)] {
                let Some(next) = next else { continue };
                let place = *places.entry(next.clone()).or_insert(worlds.len());
                if place == worlds.len() {
                    worlds.push(next);
                    before.push(vec![]);
                }
                // A crash does not count as a way on, so that a deadlock is harm too.
                if !is_crash {
                    before[place].push(at);
                }
            }
        }
        at += 1;
    }
    // A world is stuck if no steps lead from there to a world that is done.
    let mut leads_on: Vec<bool> = worlds.iter().map(|world| (scenario.is_done)(world.committed())).collect();
    let mut open: Vec<usize> = (0..worlds.len()).filter(|at| leads_on[*at]).collect();
    while let Some(at) = open.pop() {
        for earlier in &before[at] {
            if !std::mem::replace(&mut leads_on[*earlier], true) {
                open.push(*earlier);
            }
        }
    }
    match leads_on.iter().position(|leads_on| !leads_on) {
        Some(stuck) => Err((Harm::Stuck, Box::new(worlds.swap_remove(stuck)))),
        None => Ok(worlds.len()),
    }
}

#[test]
fn each_linked_job_starts_in_every_interleaving() {
    let scenarios = [
        ("two ends", TWO_ENDS),
        ("a revived prerequisite", REVIVED_PREREQUISITE),
        ("an add", ADD),
        ("an add to a moving job", ADD_TO_MOVING),
        ("a fill in parts", FILL),
        ("a fill in parts for the first", FILL_FOR_FIRST),
        ("a fill in parts and a cancel", FILL_AND_CANCEL),
        ("an add and the seal", ADD_AND_SEAL),
        ("an add of a ready job and the seal", ADD_READY_AND_SEAL),
        ("an add by a handler", ADD_BY_HANDLER),
        ("an add before a job", ADD_BEFORE),
        ("a cancel", CANCEL),
        ("an add and a cancel", ADD_AND_CANCEL),
        ("a revive and a cancel", REVIVE_AND_CANCEL),
        ("a compensation", COMPENSATION),
        ("an added compensation", ADD_COMPENSATION),
        ("an add to a revived job", ADD_TO_REVIVED),
    ];
    let mut count = 0;
    for (name, scenario) in scenarios {
        count += explore(&scenario, ALL).unwrap_or_else(|(harm, world)| panic!("{name}: {harm:?} in {world:?}"));
    }
    assert!(count > 10_000, "only {count} worlds were visited");
}

#[test]
fn each_rule_of_linked_jobs_is_needed() {
    let without = [
        ("noting an end with the delete", TWO_ENDS, Harm::Stuck, Rules { note_with_delete: false, ..ALL }),
        ("lowering the locked row", TWO_ENDS, Harm::Stuck, Rules { lower_locked: false, ..ALL }),
        ("deciding in a later statement", TWO_ENDS, Harm::Stuck, Rules { decide_later: false, ..ALL }),
        ("locking ends", TWO_ENDS, Harm::Early, Rules { lock_ends: false, ..ALL }),
        ("keeping unapplied ends", TWO_ENDS, Harm::Stuck, Rules { keep_unapplied: false, ..ALL }),
        ("keeping met dependencies", REVIVED_PREREQUISITE, Harm::Early, Rules { keep_met: false, ..ALL }),
        ("locking the prerequisite", ADD, Harm::Stuck, Rules { lock_prerequisite: false, ..ALL }),
        ("marking the prerequisite", ADD, Harm::Stuck, Rules { mark_prerequisite: false, ..ALL }),
        ("looking forward", ADD_TO_MOVING, Harm::Refused, Rules { look_forward: false, ..ALL }),
        ("looking twice", ADD_TO_MOVING, Harm::Refused, Rules { look_twice: false, ..ALL }),
        ("noting an end once more", ADD, Harm::Stuck, Rules { note_again: false, ..ALL }),
        ("taking no death", ADD_TO_REVIVED, Harm::RunsBoth, Rules { take_no_death: false, ..ALL }),
        ("asking the seal", FILL, Harm::Early, Rules { ask_seal: false, ..ALL }),
        ("asking the seal for the first", FILL_FOR_FIRST, Harm::Early, Rules { ask_seal: false, ..ALL }),
        ("settling at the seal", FILL, Harm::Stuck, Rules { settle_at_seal: false, ..ALL }),
        ("refusing jobs that have started", ADD_BEFORE, Harm::Early, Rules { refuse_started: false, ..ALL }),
        ("asking before a start", CANCEL, Harm::RunsCancelled, Rules { ask_to_start: false, ..ALL }),
        ("locking the workflow to apply", ADD_AND_CANCEL, Harm::RunsCancelled, Rules { lock_to_apply: false, ..ALL }),
        ("locking the workflow to add", ADD_AND_CANCEL, Harm::RunsCancelled, Rules { lock_to_add: false, ..ALL }),
        ("locking the workflow to read the seal", ADD_READY_AND_SEAL, Harm::Stuck, Rules { lock_to_add: false, ..ALL }),
        ("locking blocked jobs last", FILL, Harm::Stuck, Rules { lock_blocked_last: false, ..ALL }),
        ("locking jobs before the workflow", ADD_BY_HANDLER, Harm::Stuck, Rules { lock_jobs_first: false, ..ALL }),
        ("noting a revival first", COMPENSATION, Harm::RunsBoth, Rules { note_revival_first: false, ..ALL }),
        ("keeping what was acted on", COMPENSATION, Harm::RunsBoth, Rules { keep_acted_on: false, ..ALL }),
        ("passing revived jobs", REVIVE_AND_CANCEL, Harm::Stuck, Rules { pass_revived: false, ..ALL }),
    ];
    for (rule, scenario, harm, rules) in without {
        let found = explore(&scenario, rules).map_err(|(harm, _)| harm);
        assert_eq!(found, Err(harm), "without {rule}: the rule is not needed, or the model is wrong");
    }
}
