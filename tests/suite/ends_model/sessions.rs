//! What the sessions of the model do, statement by statement.

use super::Rules;
use super::database::{
    A, B, DEPENDENCIES, Decision, ENDS, Harm, Outcome, Row, Rows, State, WAITER, WORKFLOW, WaitsFor, World, state_of,
    workflow_of,
};
use super::workflows;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Move {
    Start,
    Complete,
    Die,
    Revive,
}

#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Moves a prerequisite from table to table, each time in a transaction.
    Life(usize, &'static [Move]),
    /// Calls `apply_linked_ends` whenever an end waits.
    Apply,
    /// Adds the waiter, which waits for A.
    AddWaiter,
    /// Adds the waiter, which waits for no job but the seal.
    AddReady,
    /// Adds B, and lets the waiter wait for B too.
    AddBefore,
    /// Completes A and adds B, in one transaction.
    CompleteAndAdd,
    /// Seals the workflow.
    Seal,
    /// Calls `cancel_workflow`.
    Cancel,
    /// Calls `cancel_members` while the workflow is cancelling.
    CancelMembers,
    /// Completes the waiter, and applies its end.
    CompleteWaiter,
}

/// The statements with which an add notes an end once more, and stores the waiter.
const NOTE_AGAIN: u8 = 10;
const STORE: u8 = 11;

/// Returns the world after the next step of this session; nothing if the session waits or has stopped.
pub fn step(world: &World, me: usize, roles: &[Role], rules: Rules) -> Option<World> {
    if world.has_stopped(me) {
        return None;
    }
    let mut next = world.clone();
    next.sessions[me].step += 1;
    match roles[me] {
        Role::Life(job, moves) => live(&mut next, me, job, moves, rules),
        Role::Apply => apply(&mut next, me, rules),
        Role::AddWaiter => add_waiter(&mut next, me, rules),
        Role::AddReady => add_ready(&mut next, me, rules),
        Role::AddBefore => add_before(&mut next, me, rules),
        Role::CompleteAndAdd => complete_and_add(&mut next, me, rules),
        Role::Seal => workflows::seal(&mut next, me, rules),
        Role::Cancel => workflows::cancel(&mut next, me),
        Role::CancelMembers => workflows::cancel_members(&mut next, me),
        Role::CompleteWaiter => complete_waiter(&mut next, me, rules),
    }?;
    Some(next)
}

/// The statement that this session runs now.
pub fn statement(world: &World, me: usize) -> u8 {
    world.sessions[me].step - 1
}

/// Moves a prerequisite once more: the move, the note of the end, and the commit. A revive also looks whether the death
/// was acted on.
fn live(world: &mut World, me: usize, job: usize, moves: &[Move], rules: Rules) -> Option<()> {
    let end = world.sessions[me].ended;
    let look = if rules.note_revival_first { 2 } else { 1 };
    match statement(world, me) {
        0 => move_job(world, me, job, moves, rules),
        3 => {
            world.sessions[me].moves += usize::from(rules.note_with_delete);
            world.commit(me, 0);
            Some(())
        }
        now if end == Some(Outcome::Revived) && now == look => {
            let met = Row::Dependency(Decision::Met);
            if world.waits_for == WaitsFor::Dead && world.view(me)[DEPENDENCIES[job]] == met {
                world.roll_back_and_stop(me);
            }
            Some(())
        }
        now => {
            world.sessions[me].step = if end == Some(Outcome::Revived) { now + 1 } else { 3 };
            world.write(me, ENDS[job], Row::End(end?))
        }
    }
}

/// Moves a prerequisite to the next table. If its end is to be noted, the transaction stays open.
fn move_job(world: &mut World, me: usize, job: usize, moves: &[Move], rules: Rules) -> Option<()> {
    let Some(next) = moves.get(world.sessions[me].moves) else {
        world.roll_back_and_stop(me);
        return Some(());
    };
    let (row, end) = match (next, world.lock(me, job)?) {
        (_, Row::Missing) => return None,
        (Move::Start, Row::Blocked { .. }) => (Row::Live { linked: true }, None),
        (Move::Complete, Row::Live { linked }) => {
            (Row::Finished(Outcome::Completed), linked.then_some(Outcome::Completed))
        }
        (Move::Die, Row::Live { linked }) => (Row::Dead { linked }, linked.then_some(Outcome::Dead)),
        (Move::Revive, Row::Dead { linked }) => (Row::Live { linked }, linked.then_some(Outcome::Revived)),
        _ => {
            // Another session has cancelled the job.
            world.roll_back_and_stop(me);
            return Some(());
        }
    };
    world.write(me, job, row)?;
    if end.is_none() || !rules.note_with_delete {
        world.sessions[me].moves += 1;
        world.commit(me, end.is_some().into());
    }
    world.sessions[me].ended = end;
    Some(())
}

fn apply(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    match statement(world, me) {
        0 => take_ends(world, me, rules)?,
        1 => {
            workflows::count_ends(world, me, rules)?;
            world.sessions[me].snapshot = Some(world.view(me));
        }
        2 => lower_needs(world, me, rules)?,
        3 if rules.decide_later => settle(world, me, rules)?,
        3 => {}
        4 => {
            delete_ends(world, me, rules)?;
            if rules.lock_to_apply && world.has_locked(me, WORKFLOW) {
                workflows::update_state(world, me)?;
            }
        }
        _ => world.commit(me, 0),
    }
    Some(())
}

/// Takes the ends that no other session has locked, of workflows that no other session has locked.
fn take_ends(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    let view = world.view(me);
    for job in [A, B] {
        let has_workflow = rules.lock_to_apply && view[WORKFLOW] != Row::Missing;
        world.sessions[me].taken[job] = matches!(view[ENDS[job]], Row::End(_))
            && (!rules.lock_ends
                || (world.lock(me, ENDS[job]).is_some() && (!has_workflow || world.lock(me, WORKFLOW).is_some())));
    }
    world.sessions[me].taken.contains(&true).then_some(())
}

/// Returns what the end of a prerequisite changes the dependency to; nothing if the dependency stays as it is.
fn change(world: &World, rows: &Rows, job: usize, rules: Rules) -> Option<Decision> {
    let (Row::End(end), Row::Dependency(now)) = (rows[ENDS[job]], rows[DEPENDENCIES[job]]) else {
        return None;
    };
    let then = match (world.waits_for, end) {
        (_, Outcome::Revived) => Decision::Open,
        (WaitsFor::Any, _) | (WaitsFor::Dead, Outcome::Dead) => Decision::Met,
        (WaitsFor::Completed | WaitsFor::FirstCompleted, Outcome::Completed) => Decision::Met,
        (WaitsFor::Completed | WaitsFor::FirstCompleted, Outcome::Dead) => Decision::Held,
        _ => Decision::Skipped,
    };
    let may_change = matches!(now, Decision::Open | Decision::Held) || !rules.keep_met;
    (may_change && now != then).then_some(then)
}

/// Changes the dependencies, and lowers the needs of the waiter, unless another session has locked the waiter.
fn lower_needs(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    let snapshot = world.sessions[me].snapshot.take()?;
    let taken = world.sessions[me].taken;
    let due = [A, B].map(|job| change(world, &snapshot, job, rules).filter(|_| taken[job]));
    let (Row::Blocked { needs: seen }, Row::Blocked { needs: newest }) = (snapshot[WAITER], world.view(me)[WAITER])
    else {
        return Some(());
    };
    if due == [None; 2] || world.lock(me, WAITER).is_none() {
        return Some(());
    }
    for (row, then) in DEPENDENCIES.into_iter().zip(due) {
        if let Some(then) = then {
            world.write(me, row, Row::Dependency(then))?;
        }
    }
    let met = due.iter().map(|then| i8::from(*then == Some(Decision::Met))).sum::<i8>();
    let needs = if rules.lower_locked { newest } else { seen } - met;
    let starts = !rules.decide_later && seen - met <= 0;
    world.write(me, WAITER, if starts { Row::Live { linked: true } } else { Row::Blocked { needs } })
}

/// Deletes the ends that were taken, but for those that the waiter, which another session has locked, still needs.
fn delete_ends(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    let (view, taken) = (world.view(me), world.sessions[me].taken);
    for job in [A, B].into_iter().filter(|job| taken[*job]) {
        let waits = matches!(view[WAITER], Row::Blocked { .. }) && change(world, &view, job, rules).is_some();
        if !(waits && rules.keep_unapplied) && view[ENDS[job]] != Row::Missing {
            world.write(me, ENDS[job], Row::Missing)?;
        }
    }
    Some(())
}

/// Starts or ends the waiter if this session has locked it, its dependencies are decided, and its workflow is sealed.
pub fn settle(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    let view = world.view(me);
    let Row::Blocked { needs } = view[WAITER] else { return Some(()) };
    let is_cancelling = state_of(&view) == State::Cancelling;
    let is_filled = is_cancelling || workflow_of(&view).is_none_or(|workflow| workflow.sealed);
    let mut decisions = DEPENDENCIES.iter().filter_map(|row| match view[*row] {
        Row::Dependency(decision) => Some(decision == Decision::Skipped),
        _ => None,
    });
    let is_skipped = match world.waits_for {
        WaitsFor::FirstCompleted => decisions.all(|is_skipped| is_skipped),
        _ => decisions.any(|is_skipped| is_skipped),
    };
    if !world.has_locked(me, WAITER) || (needs > 0 && !is_skipped) || (rules.ask_seal && !is_filled) {
        return Some(());
    }
    let starts = needs <= 0 && !(is_cancelling && rules.ask_to_start);
    world.write(me, WAITER, if starts { Row::Live { linked: true } } else { Row::Finished(Outcome::Cancelled) })
}

/// Locks the workflow, if there is one, and asks for its state. Returns whether the workflow is sealed; nothing if the
/// session waits. If the workflow is being cancelled, the session stops.
fn begin_add(world: &mut World, me: usize, rules: Rules) -> Option<bool> {
    if rules.lock_to_add && workflow_of(&world.view(me)).is_some() {
        world.lock(me, WORKFLOW)?;
    }
    let view = world.view(me);
    if state_of(&view) != State::Running {
        world.roll_back_and_stop(me);
    }
    Some(workflow_of(&view).is_none_or(|workflow| workflow.sealed))
}

fn add_waiter(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    let at = statement(world, me);
    if at == 0 && !rules.lock_jobs_first {
        begin_add(world, me, rules)?;
    }
    match at {
        NOTE_AGAIN => {
            let ended = world.sessions[me].ended?;
            if rules.note_again && world.lock(me, ENDS[A])? == Row::Missing {
                world.write(me, ENDS[A], Row::End(ended))?;
            }
        }
        STORE => {
            begin_add(world, me, rules)?;
            if !world.has_stopped(me) {
                world.write(me, WAITER, Row::Blocked { needs: 1 })?;
                world.write(me, DEPENDENCIES[A], Row::Dependency(Decision::Open))?;
            }
        }
        look if look < NOTE_AGAIN => link_prerequisite(world, me, look, rules)?,
        _ => world.commit_and_stop(me),
    }
    Some(())
}

fn add_ready(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    if statement(world, me) > 0 {
        world.commit_and_stop(me);
        return Some(());
    }
    let is_sealed = begin_add(world, me, rules)?;
    world.write(me, WAITER, if is_sealed { Row::Live { linked: true } } else { Row::Blocked { needs: 0 } })
}

fn complete_and_add(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    match statement(world, me) {
        0 => {
            world.write(me, A, Row::Finished(Outcome::Completed))?;
            world.write(me, ENDS[A], Row::End(Outcome::Completed))?;
        }
        1 => {
            begin_add(world, me, rules)?;
            world.write(me, B, Row::Live { linked: true })?;
        }
        _ => world.commit_and_stop(me),
    }
    Some(())
}

/// Looks for A in one of five tables.
fn link_prerequisite(world: &mut World, me: usize, look: u8, rules: Rules) -> Option<()> {
    let (view, place) = (world.view(me), if rules.look_forward { look % 5 } else { 4 - look % 5 });
    let linked = rules.mark_prerequisite;
    let (marked, ended) = match (place, view[A], view[ENDS[A]]) {
        (0, row @ Row::Blocked { .. }, _) => (Some(row), None),
        (1, Row::Live { linked: before }, _) => (Some(Row::Live { linked: before || linked }), None),
        (2, Row::Dead { linked: before }, _) => (Some(Row::Dead { linked: before || linked }), Some(Outcome::Dead)),
        (3, _, Row::End(Outcome::Dead)) if !rules.take_no_death => (None, Some(Outcome::Dead)),
        (3, _, Row::End(end @ (Outcome::Completed | Outcome::Cancelled))) => (None, Some(end)),
        (4, Row::Finished(end), _) => (None, Some(end)),
        _ => {
            if look == if rules.look_twice { 9 } else { 4 } {
                // An add may be refused if the job has moved back twice meanwhile, which takes five moves.
                world.harm = world.sessions.iter().all(|session| session.moves < 5).then_some(Harm::Refused);
                world.roll_back_and_stop(me);
            }
            return Some(());
        }
    };
    if let Some(row) = marked {
        world.write(me, A, row)?;
        if !rules.lock_prerequisite {
            world.commit_row(me, A);
        }
    }
    world.sessions[me].ended = ended;
    world.sessions[me].step = if ended.is_some() { NOTE_AGAIN } else { STORE };
    Some(())
}

/// Locks the waiter if it is blocked.
pub fn lock_blocked(world: &mut World, me: usize) -> Option<()> {
    if matches!(world.view(me)[WAITER], Row::Blocked { .. }) {
        world.lock(me, WAITER)?;
    }
    Some(())
}

fn add_before(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    match statement(world, me) {
        now @ 0..=1 => {
            if (now == 1) == rules.lock_blocked_last {
                lock_blocked(world, me)?;
            } else {
                begin_add(world, me, rules)?;
            }
        }
        2 => {
            world.write(me, B, Row::Live { linked: true })?;
            world.write(me, DEPENDENCIES[B], Row::Dependency(Decision::Open))?;
            let view = world.view(me);
            if let Row::Blocked { needs } = view[WAITER] {
                let more = i8::from(world.waits_for != WaitsFor::FirstCompleted);
                world.write(me, WAITER, Row::Blocked { needs: needs + more })?;
            } else if rules.refuse_started {
                // In a workflow that is not sealed, no job that waits has started.
                if workflow_of(&view).is_some_and(|workflow| !workflow.sealed) {
                    world.harm = Some(Harm::Refused);
                }
                world.roll_back_and_stop(me);
            }
        }
        _ => world.commit_and_stop(me),
    }
    Some(())
}

/// The dependencies of a completed job are forgotten, unless it belongs to a workflow.
fn complete_waiter(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    let Row::Live { .. } = world.lock(me, WAITER)? else { return None };
    world.write(me, WAITER, Row::Finished(Outcome::Completed))?;
    let is_acted_on = world.waits_for == WaitsFor::Dead && matches!(world.view(me)[A], Row::Dead { .. });
    if !(is_acted_on && rules.keep_acted_on) {
        world.write(me, DEPENDENCIES[A], Row::Missing)?;
    }
    world.commit_and_stop(me);
    Some(())
}
