//! A model of the bell: all interleavings of two producers, two workers and a session that locks rows.
//!
//! With all rules, no wake-up is lost. Without any one rule, some interleaving loses a wake-up.

use std::collections::HashSet;

const PRODUCERS: usize = 2;
const WORKERS: usize = 2;

/// The rules of falling asleep. The test drops each rule in turn.
#[derive(Clone, Copy)]
struct Rules {
    /// A worker inserts its row in `sleepers` before its last look.
    arm_before_looking: bool,
    /// A worker looks again until the transactions that were open when it armed the bell have ended.
    wait_for_silent: bool,
    /// A worker asks for the open transactions after it has armed the bell, not before.
    ask_after_arming: bool,
    /// A worker looks once more after the open transactions have ended.
    look_at_last: bool,
    /// A transaction with an older snapshot always rings the bell.
    old_snapshots_ring: bool,
    /// A look that saw a locked due row does not count as empty.
    locked_rows_count: bool,
    /// A producer's row becomes visible before the locks of its transaction are gone.
    seen_before_unlocked: bool,
    /// A worker sets `somebody_sleeps` before it asks for the open transactions, not after.
    set_before_asking: bool,
    /// A worker clears `somebody_sleeps` only if no worker sleeps.
    clear_if_none_sleeps: bool,
    /// While a worker checks for sleepers and clears `somebody_sleeps`, no worker falls asleep. A worker that falls
    /// asleep holds a lock until its row is visible.
    clear_alone: bool,
}

const ALL: Rules = Rules {
    arm_before_looking: true,
    wait_for_silent: true,
    ask_after_arming: true,
    look_at_last: true,
    old_snapshots_ring: true,
    locked_rows_count: true,
    seen_before_unlocked: true,
    set_before_asking: true,
    clear_if_none_sleeps: true,
    clear_alone: true,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Producer {
    Idle,
    /// The snapshot is taken, and shows these sleepers. In read committed, the trigger ignores this snapshot.
    Begun {
        slept: [bool; WORKERS],
    },
    /// The transaction holds its lock on the table, and has inserted its row.
    Inserted {
        slept: [bool; WORKERS],
    },
    /// The trigger has run.
    Triggered {
        rings: bool,
    },
    /// One of the two steps of the commit is done. The steps make the row visible, and free the lock.
    HalfEnded,
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Worker {
    /// Is about to look. `Next` follows an empty look.
    Looks(Next),
    /// Is about to set `somebody_sleeps`. Knows the open transactions already if the rule `ask_after_arming` is
    /// dropped.
    Sets(Option<[bool; PRODUCERS]>),
    /// Has set `somebody_sleeps`. The sleepers' row of this worker is not visible yet.
    Arms(Option<[bool; PRODUCERS]>),
    /// Is about to ask for the open transactions, which may commit without ringing the bell.
    Asks,
    /// Waits for the end of these transactions.
    Waits([bool; PRODUCERS]),
    Sleeps,
    /// Has disarmed the bell, and is about to check if any worker sleeps.
    Checks,
    /// Has found no sleeping worker, and is about to clear `somebody_sleeps`.
    Clears,
    /// Has stopped.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Next {
    Arm,
    Wait([bool; PRODUCERS]),
    Sleep,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    producers: [Producer; PRODUCERS],
    /// True if a producer's job is visible and not claimed yet.
    waiting: [bool; PRODUCERS],
    workers: [Worker; WORKERS],
    sleepers: [bool; WORKERS],
    /// The flag that producers read: true if a worker may be asleep.
    somebody_sleeps: bool,
    bells: [bool; WORKERS],
    /// The job that another session locks by `for update`. The session locks a row once.
    locked: Option<usize>,
    may_lock: bool,
    /// The number of times that a worker may still disarm the bell.
    may_disarm: u8,
}

impl World {
    fn new() -> World {
        World {
            producers: [Producer::Idle; PRODUCERS],
            waiting: [false; PRODUCERS],
            workers: [Worker::Looks(Next::Arm); WORKERS],
            sleepers: [false; WORKERS],
            somebody_sleeps: false,
            bells: [false; WORKERS],
            locked: None,
            may_lock: true,
            may_disarm: 1,
        }
    }

    fn holds_lock(&self, producer: usize, rules: Rules) -> bool {
        match self.producers[producer] {
            Producer::Inserted { .. } | Producer::Triggered { .. } => true,
            Producer::HalfEnded => rules.seen_before_unlocked,
            Producer::Idle | Producer::Begun { .. } | Producer::Ended => false,
        }
    }

    fn holders(&self, rules: Rules) -> [bool; PRODUCERS] {
        std::array::from_fn(|producer| self.holds_lock(producer, rules))
    }

    /// Returns true if a job waits forever: no producer or worker has steps left, and no bell will wake a worker.
    fn is_lost(&self) -> bool {
        self.producers.iter().all(|producer| *producer == Producer::Ended)
            && self.locked.is_none()
            && self.workers.iter().all(|worker| matches!(worker, Worker::Sleeps | Worker::Gone))
            && self.workers.contains(&Worker::Sleeps)
            && !self.bells.iter().zip(&self.workers).any(|(bell, worker)| *bell && *worker == Worker::Sleeps)
            && self.waiting.iter().any(|waits| *waits)
    }

    /// Returns every world that is one step away.
    fn steps(&self, rules: Rules, old_snapshot: bool) -> Vec<World> {
        let mut worlds = Vec::new();
        for producer in 0..PRODUCERS {
            // Only the first producer may have an older snapshot.
            worlds.extend(self.produce(producer, rules, old_snapshot && producer == 0));
        }
        for worker in 0..WORKERS {
            worlds.extend(self.work(worker, rules));
        }
        worlds.extend(self.lock_or_unlock());
        worlds
    }

    fn produce(&self, producer: usize, rules: Rules, old_snapshot: bool) -> Option<World> {
        let mut world = self.clone();
        world.producers[producer] = match self.producers[producer] {
            Producer::Idle => Producer::Begun { slept: self.sleepers },
            Producer::Begun { slept } => Producer::Inserted { slept },
            Producer::Inserted { slept } => {
                let seen = if old_snapshot { slept } else { self.sleepers };
                let rings = seen.contains(&true) || (old_snapshot && rules.old_snapshots_ring);
                let rings = rings && self.somebody_sleeps;
                Producer::Triggered { rings }
            }
            Producer::Triggered { rings } => {
                world.waiting[producer] = rules.seen_before_unlocked;
                // Every listener receives the bell, even a listener that has not armed the bell.
                world.bells.iter_mut().for_each(|bell| *bell |= rings);
                Producer::HalfEnded
            }
            Producer::HalfEnded => {
                world.waiting[producer] |= !rules.seen_before_unlocked;
                Producer::Ended
            }
            Producer::Ended => return None,
        };
        Some(world)
    }

    fn work(&self, worker: usize, rules: Rules) -> Vec<World> {
        let to = |next: Worker| {
            let mut world = self.clone();
            world.workers[worker] = next;
            world
        };
        match self.workers[worker] {
            Worker::Looks(next) => vec![self.look(worker, next, rules)],
            Worker::Sets(_) if rules.clear_alone && self.workers.contains(&Worker::Clears) => vec![],
            Worker::Sets(known) => {
                let mut world = to(Worker::Arms(known));
                world.somebody_sleeps |= rules.set_before_asking;
                vec![world]
            }
            Worker::Arms(known) => {
                let mut world = to(known.map_or(Worker::Asks, |silent| Worker::Looks(Next::Wait(silent))));
                world.sleepers[worker] = true;
                vec![world]
            }
            Worker::Asks => {
                let silent = self.holders(rules);
                vec![to(match (rules.wait_for_silent, rules.ask_after_arming) {
                    (false, _) => Worker::Looks(Next::Sleep),
                    (true, true) => Worker::Looks(Next::Wait(silent)),
                    (true, false) => Worker::Sets(Some(silent)),
                })]
            }
            Worker::Waits(silent) => {
                let left: [bool; PRODUCERS] = std::array::from_fn(|p| silent[p] && self.holds_lock(p, rules));
                if left.contains(&true) {
                    return vec![to(Worker::Looks(Next::Wait(left)))];
                }
                let mut world = to(if rules.look_at_last { Worker::Looks(Next::Sleep) } else { Worker::Sleeps });
                world.somebody_sleeps |= !rules.set_before_asking;
                vec![world]
            }
            Worker::Sleeps if self.bells[worker] => {
                let mut wakes = to(Worker::Looks(Next::Sleep));
                wakes.bells[worker] = false;
                let mut worlds = vec![wakes.clone()];
                if self.may_disarm > 0 {
                    wakes.may_disarm -= 1;
                    wakes.sleepers[worker] = false;
                    wakes.workers[worker] = Worker::Checks;
                    worlds.push(wakes);
                }
                worlds
            }
            Worker::Checks => {
                let arming = self.workers.iter().any(|worker| matches!(worker, Worker::Arms(_)));
                let kept_out =
                    (rules.clear_alone && arming) || (rules.clear_if_none_sleeps && self.sleepers.contains(&true));
                vec![to(if kept_out { Worker::Looks(Next::Arm) } else { Worker::Clears })]
            }
            Worker::Clears => {
                let (mut goes_on, mut leaves) = (to(Worker::Looks(Next::Arm)), to(Worker::Gone));
                (goes_on.somebody_sleeps, leaves.somebody_sleeps) = (false, false);
                vec![goes_on, leaves]
            }
            Worker::Sleeps | Worker::Gone => vec![],
        }
    }

    /// Claims a job if the worker can claim one. An empty look leads to `next`.
    fn look(&self, worker: usize, next: Next, rules: Rules) -> World {
        let mut world = self.clone();
        let free = (0..PRODUCERS).find(|job| self.waiting[*job] && self.locked != Some(*job));
        if let Some(job) = free {
            world.waiting[job] = false;
            return world;
        }
        let saw_locked = self.locked.is_some_and(|job| self.waiting[job]);
        if saw_locked && rules.locked_rows_count {
            return world;
        }
        world.workers[worker] = match next {
            Next::Arm if rules.arm_before_looking && rules.ask_after_arming => Worker::Sets(None),
            Next::Arm if rules.arm_before_looking => Worker::Asks,
            Next::Arm => {
                // Without `arm_before_looking`, the worker arms the bell after its last look, and sleeps at once.
                (world.sleepers[worker], world.somebody_sleeps) = (true, true);
                Worker::Sleeps
            }
            Next::Wait(silent) => Worker::Waits(silent),
            Next::Sleep => Worker::Sleeps,
        };
        world
    }

    fn lock_or_unlock(&self) -> Vec<World> {
        if self.locked.is_some() {
            return vec![World { locked: None, ..self.clone() }];
        }
        let jobs = (0..PRODUCERS).filter(|job| self.may_lock && self.waiting[*job]);
        jobs.map(|job| World { locked: Some(job), may_lock: false, ..self.clone() }).collect()
    }
}

/// Visits every possible world. Returns the number of worlds, or a world in which a wake-up is lost.
fn explore(rules: Rules) -> Result<usize, Box<World>> {
    let mut count = 0;
    for old_snapshot in [false, true] {
        let mut known = HashSet::from([World::new()]);
        let mut open = vec![World::new()];
        while let Some(world) = open.pop() {
            if world.is_lost() {
                return Err(Box::new(world));
            }
            for next in world.steps(rules, old_snapshot) {
                if known.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        count += known.len();
    }
    Ok(count)
}

#[test]
fn no_interleaving_loses_a_wake_up() {
    let count = explore(ALL).unwrap_or_else(|lost| panic!("lost: {lost:?}"));
    assert!(count > 10_000, "only {count} worlds were visited");
}

#[test]
fn every_rule_is_needed() {
    let without = [
        ("arming before the last look", Rules { arm_before_looking: false, ..ALL }),
        ("waiting for silent transactions", Rules { wait_for_silent: false, ..ALL }),
        ("asking for silent transactions after arming", Rules { ask_after_arming: false, ..ALL }),
        ("looking once more at the end", Rules { look_at_last: false, ..ALL }),
        ("ringing from older snapshots", Rules { old_snapshots_ring: false, ..ALL }),
        ("counting locked rows", Rules { locked_rows_count: false, ..ALL }),
        ("showing a row before its lock is gone", Rules { seen_before_unlocked: false, ..ALL }),
        ("setting the flag before asking", Rules { set_before_asking: false, ..ALL }),
        ("clearing the flag only if no worker sleeps", Rules { clear_if_none_sleeps: false, ..ALL }),
        ("clearing the flag while no worker goes to sleep", Rules { clear_alone: false, ..ALL }),
    ];
    for (rule, rules) in without {
        assert!(
            explore(rules).is_err(),
            "no wake-up is lost without {rule}: the rule is not needed, or the model is wrong"
        );
    }
}
