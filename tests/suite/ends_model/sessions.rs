//! What the sessions of the model do, statement by statement.

use super::Rules;
use super::database::{
    A, B, DEPENDENCIES, Decision, ENDS, FiresOn, Harm, Outcome, Row, Rows, State, WAITER, WORKFLOW, World,
};

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
    /// Adds B, and lets the waiter wait for B too.
    AddBefore,
    /// Seals the workflow once B is added.
    Seal,
    /// Calls `cancel_workflow`.
    Cancel,
    /// Calls `cancel_members` while the workflow is cancelling.
    CancelMembers,
    /// Completes the waiter, and applies its end.
    CompleteWaiter,
}

/// The statement with which an add notes an end once more, and its commit.
const NOTE_AGAIN: u8 = 11;
const COMMIT_ADD: u8 = 12;

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
        Role::AddBefore => add_before(&mut next, me, rules),
        Role::Seal => {
            let mut adds = roles.iter().enumerate().filter(|(_, role)| matches!(role, Role::AddBefore));
            adds.all(|(session, _)| world.has_stopped(session)).then_some(())?;
            seal(&mut next, me, rules)
        }
        Role::Cancel => cancel(&mut next, me),
        Role::CancelMembers => cancel_members(&mut next, me),
        Role::CompleteWaiter => complete_waiter(&mut next, me, rules),
    }?;
    Some(next)
}

/// The statement that this session runs now.
fn statement(world: &World, me: usize) -> u8 {
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
            if world.fires_on == FiresOn::Dead && world.view(me)[DEPENDENCIES[job]] == met {
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
        1 => world.sessions[me].snapshot = Some(world.view(me)),
        2 => lower_needs(world, me, rules)?,
        3 if rules.decide_later => settle(world, me, rules)?,
        3 => {}
        4 => delete_ends(world, me, rules)?,
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
    let then = match (world.fires_on, end) {
        (_, Outcome::Revived) => Decision::Open,
        (FiresOn::Any, _) | (FiresOn::Completed, Outcome::Completed) | (FiresOn::Dead, Outcome::Dead) => Decision::Met,
        (FiresOn::Completed, Outcome::Dead) => Decision::Held,
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

/// Starts or ends the waiter if this session has lowered its needs, and its dependencies are decided.
fn settle(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    let view = world.view(me);
    let Row::Blocked { needs } = view[WAITER] else { return Some(()) };
    let is_cancelling = matches!(view[WORKFLOW], Row::Workflow { state: State::Cancelling, .. });
    let is_skipped = DEPENDENCIES.iter().any(|row| view[*row] == Row::Dependency(Decision::Skipped));
    if !world.has_locked(me, WAITER) || (needs > 0 && !is_skipped) {
        return Some(());
    }
    let starts = needs <= 0 && !(is_cancelling && rules.ask_to_start);
    world.write(me, WAITER, if starts { Row::Live { linked: true } } else { Row::Finished(Outcome::Cancelled) })
}

/// Begins an add to the workflow, if there is one. Returns whether the workflow is sealed; nothing if the session
/// waits. If the workflow is being cancelled, the session stops.
fn begin_add(world: &mut World, me: usize, rules: Rules) -> Option<bool> {
    let mut workflow = world.view(me)[WORKFLOW];
    if rules.lock_to_add && workflow != Row::Missing {
        workflow = world.lock(me, WORKFLOW)?;
    }
    match workflow {
        Row::Workflow { state: State::Running, sealed } => Some(sealed),
        Row::Workflow { .. } => {
            world.roll_back_and_stop(me);
            Some(true)
        }
        _ => Some(true),
    }
}

fn add_waiter(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    match statement(world, me) {
        0 => {
            let is_sealed = begin_add(world, me, rules)?;
            if !world.has_stopped(me) {
                let needs = 1 + i8::from(rules.need_seal && !is_sealed);
                world.write(me, WAITER, Row::Blocked { needs })?;
                world.write(me, DEPENDENCIES[A], Row::Dependency(Decision::Open))?;
            }
        }
        NOTE_AGAIN => {
            let ended = world.sessions[me].ended?;
            if rules.note_again && world.lock(me, ENDS[A])? == Row::Missing {
                world.write(me, ENDS[A], Row::End(ended))?;
            }
        }
        COMMIT_ADD => world.commit_and_stop(me),
        look => link_prerequisite(world, me, look - 1, rules)?,
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
        (3, _, Row::End(end)) if end != Outcome::Revived => (None, Some(end)),
        (4, Row::Finished(end), _) => (None, Some(end)),
        _ => {
            if look == if rules.look_twice { 9 } else { 4 } {
                world.harm = Some(Harm::Refused);
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
    world.sessions[me].step = if ended.is_some() { NOTE_AGAIN } else { COMMIT_ADD };
    Some(())
}

fn add_before(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    match statement(world, me) {
        0 => {
            begin_add(world, me, rules)?;
            if !world.has_stopped(me) {
                world.write(me, B, Row::Live { linked: true })?;
                world.write(me, DEPENDENCIES[B], Row::Dependency(Decision::Open))?;
            }
        }
        1 => {
            let view = world.view(me);
            if let Row::Blocked { needs } = view[WAITER] {
                world.write(me, WAITER, Row::Blocked { needs: needs + 1 })?;
            } else if rules.refuse_started {
                // In a workflow that is not sealed, no job that waits has started.
                if matches!(view[WORKFLOW], Row::Workflow { sealed: false, .. }) {
                    world.harm = Some(Harm::Refused);
                }
                world.roll_back_and_stop(me);
            }
        }
        _ => world.commit_and_stop(me),
    }
    Some(())
}

fn seal(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    match statement(world, me) {
        0 => {
            let Row::Workflow { state, .. } = world.lock(me, WORKFLOW)? else { return None };
            world.write(me, WORKFLOW, Row::Workflow { state, sealed: true })?;
        }
        1 => {
            if let Row::Blocked { needs } = world.view(me)[WAITER] {
                world.write(me, WAITER, Row::Blocked { needs: needs - i8::from(rules.need_seal) })?;
            }
        }
        2 => settle(world, me, rules)?,
        _ => world.commit_and_stop(me),
    }
    Some(())
}

fn cancel(world: &mut World, me: usize) -> Option<()> {
    let Row::Workflow { sealed, .. } = world.lock(me, WORKFLOW)? else { return None };
    world.write(me, WORKFLOW, Row::Workflow { state: State::Cancelling, sealed })?;
    world.commit_and_stop(me);
    Some(())
}

fn cancel_members(world: &mut World, me: usize) -> Option<()> {
    let Row::Workflow { state: State::Cancelling, sealed } = world.lock(me, WORKFLOW)? else { return None };
    if statement(world, me) == 0 {
        return Some(());
    }
    for job in [A, B, WAITER] {
        if !matches!(world.view(me)[job], Row::Blocked { .. } | Row::Live { .. }) {
            continue;
        }
        // If another session has locked the job, a later call goes on from here.
        if world.write(me, job, Row::Finished(Outcome::Cancelled)).is_none() {
            world.commit(me, 0);
            return Some(());
        }
        if let Some(end) = ENDS.get(job) {
            world.write(me, *end, Row::End(Outcome::Cancelled))?;
        }
    }
    // A workflow that is not sealed stays `cancelling`.
    let state = if sealed { State::Cancelled } else { State::Cancelling };
    world.write(me, WORKFLOW, Row::Workflow { state, sealed })?;
    world.commit(me, 0);
    Some(())
}

/// The dependencies of a completed job are forgotten, unless it belongs to a workflow.
fn complete_waiter(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    let Row::Live { .. } = world.lock(me, WAITER)? else { return None };
    world.write(me, WAITER, Row::Finished(Outcome::Completed))?;
    let is_acted_on = world.fires_on == FiresOn::Dead && matches!(world.view(me)[A], Row::Dead { .. });
    if !(is_acted_on && rules.keep_acted_on) {
        world.write(me, DEPENDENCIES[A], Row::Missing)?;
    }
    world.commit_and_stop(me);
    Some(())
}
