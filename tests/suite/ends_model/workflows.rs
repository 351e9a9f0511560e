//! What sessions do to a whole workflow: they count ends, seal, and cancel.

use super::Rules;
use super::database::{A, B, ENDS, Outcome, Row, State, WAITER, WORKFLOW, World, workflow_of};
use super::sessions::{lock_blocked, settle, statement};

/// Counts the ends that an applier has taken.
pub fn count_ends(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    let (view, taken) = (world.view(me), world.sessions[me].taken);
    for job in [A, B].into_iter().filter(|job| taken[*job]) {
        let (Row::End(end), Some(before)) = (view[ENDS[job]], workflow_of(&view)) else { continue };
        let outcome = Some(end).filter(|end| *end != Outcome::Revived);
        if before.outcomes[job] == outcome && outcome.is_some() {
            continue;
        }
        let Row::Workflow(mut workflow) = world.lock(me, WORKFLOW)? else { return None };
        workflow.outcomes[job] = outcome;
        if outcome.is_none() && rules.pass_revived {
            workflow.passed = 0;
        }
        world.write(me, WORKFLOW, Row::Workflow(workflow))?;
    }
    Some(())
}

/// Brings the state of the workflow up to date: a cancel is done once each job has ended.
pub fn update_state(world: &mut World, me: usize) -> Option<()> {
    let Row::Workflow(mut workflow) = world.lock(me, WORKFLOW)? else { return Some(()) };
    let view = world.view(me);
    let has_ended = matches!(view[WAITER], Row::Missing | Row::Finished(_))
        && [A, B].iter().all(|job| view[*job] == Row::Missing || workflow.outcomes[*job].is_some());
    workflow.state = match workflow.state {
        State::Cancelling if has_ended => State::Cancelled,
        State::Cancelled if !has_ended => State::Running,
        state => state,
    };
    world.write(me, WORKFLOW, Row::Workflow(workflow))
}

pub fn seal(world: &mut World, me: usize, rules: Rules) -> Option<()> {
    match statement(world, me) {
        0 => {
            let Row::Workflow(mut workflow) = world.lock(me, WORKFLOW)? else { return None };
            workflow.sealed = true;
            world.write(me, WORKFLOW, Row::Workflow(workflow))?;
        }
        1 => lock_blocked(world, me)?,
        2 if rules.settle_at_seal => settle(world, me, rules)?,
        2 => {}
        _ => world.commit_and_stop(me),
    }
    Some(())
}

pub fn cancel(world: &mut World, me: usize) -> Option<()> {
    let Row::Workflow(mut workflow) = world.lock(me, WORKFLOW)? else { return None };
    workflow.state = State::Cancelling;
    world.write(me, WORKFLOW, Row::Workflow(workflow))?;
    world.commit_and_stop(me);
    Some(())
}

/// Cancels the jobs that the cancel has not passed yet.
pub fn cancel_members(world: &mut World, me: usize) -> Option<()> {
    let Row::Workflow(mut workflow) = world.lock(me, WORKFLOW)? else { return None };
    if workflow.state != State::Cancelling || workflow.passed > WAITER {
        return None;
    }
    if statement(world, me) == 0 {
        return Some(());
    }
    while workflow.passed <= WAITER {
        let job = workflow.passed;
        if matches!(world.view(me)[job], Row::Blocked { .. } | Row::Live { .. }) {
            // If another session has locked the job, a later call goes on from here.
            if world.write(me, job, Row::Finished(Outcome::Cancelled)).is_none() {
                break;
            }
            if let Some(end) = ENDS.get(job) {
                world.write(me, *end, Row::End(Outcome::Cancelled))?;
            }
        }
        workflow.passed += 1;
    }
    world.write(me, WORKFLOW, Row::Workflow(workflow))?;
    update_state(world, me)?;
    world.commit(me, 0);
    Some(())
}
