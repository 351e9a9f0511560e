//! The bell, modelled: every interleaving of producers, sleepers and somebody who locks rows, in small numbers.
//!
//! With all rules no wake-up is lost; without any single one of them, some interleaving loses one.

use std::collections::HashSet;

const PRODUCERS: usize = 2;
const WORKERS: usize = 2;

/// The rules of going to sleep, each of which can be dropped.
#[derive(Clone, Copy)]
struct Rules {
    /// Insert the sleepers' row before the last look.
    arm_before_looking: bool,
    /// Look again until the transactions are gone that were under way when the bell was armed.
    wait_for_silent: bool,
    /// Ask for them after arming, not before.
    ask_after_arming: bool,
    /// Look once more when they are gone.
    look_at_last: bool,
    /// A transaction with an older snapshot always rings.
    old_snapshots_ring: bool,
    /// A look that saw a due row which somebody had locked is not empty.
    locked_rows_count: bool,
    /// A row stays locked by its producer's transaction until it can be seen.
    seen_before_unlocked: bool,
    /// Say that somebody sleeps before asking for silent transactions, not after.
    say_before_asking: bool,
    /// Say that nobody sleeps only if that is so.
    say_nobody_if_so: bool,
    /// Nobody goes to sleep between that question and its answer: who does holds a lock until its row can be seen.
    say_nobody_alone: bool,
}

const ALL: Rules = Rules {
    arm_before_looking: true,
    wait_for_silent: true,
    ask_after_arming: true,
    look_at_last: true,
    old_snapshots_ring: true,
    locked_rows_count: true,
    seen_before_unlocked: true,
    say_before_asking: true,
    say_nobody_if_so: true,
    say_nobody_alone: true,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Producer {
    Idle,
    /// Its snapshot is taken: these slept then. For one in read committed it does not count.
    Begun {
        slept: [bool; WORKERS],
    },
    /// Its lock on the table is held, its row inserted.
    Inserted {
        slept: [bool; WORKERS],
    },
    /// Its trigger has run.
    Triggered {
        rings: bool,
    },
    /// Its commit ends in two steps: its row can be seen, and its lock is gone. One of them has been made.
    HalfEnded,
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Worker {
    /// About to look, with what follows an empty look.
    Looks(Next),
    /// About to say that somebody sleeps; knowing already who may commit in silence, if that was asked too early.
    Says(Option<[bool; PRODUCERS]>),
    /// Has said so, with its row not seen yet.
    Arms(Option<[bool; PRODUCERS]>),
    /// About to ask who may commit in silence.
    Asks,
    /// Waits for these to end.
    Waits([bool; PRODUCERS]),
    Sleeps,
    /// Has disarmed, and is about to see whether anybody sleeps.
    Checks,
    /// Has seen that nobody does, and is about to say so.
    SaysNobody,
    /// Has left.
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
    /// Whether a producer's job can be seen and is not claimed yet.
    waiting: [bool; PRODUCERS],
    workers: [Worker; WORKERS],
    sleepers: [bool; WORKERS],
    /// Whether anybody is said to sleep.
    somebody_sleeps: bool,
    bells: [bool; WORKERS],
    /// Somebody else's `for update`, once, on this job; then it is over.
    locked: Option<usize>,
    may_lock: bool,
    /// How often a worker may still disarm.
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

    /// All have done what they can, everybody sleeps who has not left, and a job waits that nobody will be told of.
    fn is_lost(&self) -> bool {
        self.producers.iter().all(|producer| *producer == Producer::Ended)
            && self.locked.is_none()
            && self.workers.iter().all(|worker| matches!(worker, Worker::Sleeps | Worker::Gone))
            && self.workers.contains(&Worker::Sleeps)
            && !self.bells.iter().zip(&self.workers).any(|(bell, worker)| *bell && *worker == Worker::Sleeps)
            && self.waiting.iter().any(|waits| *waits)
    }

    /// Every world that one step of anybody leads to.
    fn steps(&self, rules: Rules, old_snapshot: bool) -> Vec<World> {
        let mut worlds = Vec::new();
        for producer in 0..PRODUCERS {
            // The first one has an older snapshot, if any.
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
                // Whoever listens hears it, whether the bell was armed for it or not.
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
            Worker::Says(_) if rules.say_nobody_alone && self.workers.contains(&Worker::SaysNobody) => vec![],
            Worker::Says(known) => {
                let mut world = to(Worker::Arms(known));
                world.somebody_sleeps |= rules.say_before_asking;
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
                    (true, false) => Worker::Says(Some(silent)),
                })]
            }
            Worker::Waits(silent) => {
                let left: [bool; PRODUCERS] = std::array::from_fn(|p| silent[p] && self.holds_lock(p, rules));
                if left.contains(&true) {
                    return vec![to(Worker::Looks(Next::Wait(left)))];
                }
                let mut world = to(if rules.look_at_last { Worker::Looks(Next::Sleep) } else { Worker::Sleeps });
                world.somebody_sleeps |= !rules.say_before_asking;
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
                    (rules.say_nobody_alone && arming) || (rules.say_nobody_if_so && self.sleepers.contains(&true));
                vec![to(if kept_out { Worker::Looks(Next::Arm) } else { Worker::SaysNobody })]
            }
            Worker::SaysNobody => {
                let (mut goes_on, mut leaves) = (to(Worker::Looks(Next::Arm)), to(Worker::Gone));
                (goes_on.somebody_sleeps, leaves.somebody_sleeps) = (false, false);
                vec![goes_on, leaves]
            }
            Worker::Sleeps | Worker::Gone => vec![],
        }
    }

    /// Claims what can be claimed; an empty look leads on.
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
            Next::Arm if rules.arm_before_looking && rules.ask_after_arming => Worker::Says(None),
            Next::Arm if rules.arm_before_looking => Worker::Asks,
            Next::Arm => {
                // Asleep as soon as nothing was found, and only then known to sleep.
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

/// Goes through every world that can come about; returns how many there are, or one in which a wake-up is lost.
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
        ("asking for them after arming", Rules { ask_after_arming: false, ..ALL }),
        ("looking once more at last", Rules { look_at_last: false, ..ALL }),
        ("ringing from older snapshots", Rules { old_snapshots_ring: false, ..ALL }),
        ("counting locked rows", Rules { locked_rows_count: false, ..ALL }),
        ("being seen before the lock goes", Rules { seen_before_unlocked: false, ..ALL }),
        ("saying that somebody sleeps before asking", Rules { say_before_asking: false, ..ALL }),
        ("saying that nobody does only if so", Rules { say_nobody_if_so: false, ..ALL }),
        ("saying that nobody does alone", Rules { say_nobody_alone: false, ..ALL }),
    ];
    for (rule, rules) in without {
        assert!(explore(rules).is_err(), "nothing is lost without {rule}: it is no rule, or the model is blind to it");
    }
}
