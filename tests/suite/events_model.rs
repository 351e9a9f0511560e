//! A model of events and of steps: all interleavings of an emit, a job that waits, passes that pair the two, a session
//! that locks the job, and of a worker that records a step while it is declared dead.
//!
//! With all rules, no event is lost and no step is recorded twice. Without any one rule, some interleaving does so.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// A model: its worlds, their next worlds, and whether a world is bad.
trait Model: Clone + Eq + Hash + Debug {
    type Rules: Copy;

    fn next(&self, rules: Self::Rules) -> Vec<Self>;
    fn is_bad(&self) -> bool;
}

/// Visits every possible world. Returns the number of worlds, or a bad world.
fn explore<M: Model>(first: M, rules: M::Rules) -> Result<usize, Box<M>> {
    let (mut known, mut open) = (HashSet::from([first.clone()]), vec![first]);
    while let Some(world) = open.pop() {
        if world.is_bad() {
            return Err(Box::new(world));
        }
        for next in world.next(rules) {
            if known.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Ok(known.len())
}

const PASSES: usize = 2;

/// The rules of pairing events with waits. The test drops each rule in turn.
#[derive(Clone, Copy)]
struct Pairing {
    /// The row in `waits` is written in the same transaction as the snooze of the job, not before.
    wait_comes_with_the_snooze: bool,
    /// A snooze makes a wait new again that a pass has marked.
    snooze_makes_new: bool,
    /// A pass marks only rows that its snapshot sees.
    mark_only_what_is_seen: bool,
    /// A pass marks a wait only in the version that its snapshot sees.
    mark_only_the_seen_version: bool,
    /// A pass pairs new events with all waits.
    pair_with_all_waits: bool,
    /// A pass pairs new waits with all events.
    pair_with_all_events: bool,
    /// If another session has locked the waiting job, the event and the wait stay new.
    locked_stays_new: bool,
}

const PAIRING: Pairing = Pairing {
    wait_comes_with_the_snooze: true,
    snooze_makes_new: true,
    mark_only_what_is_seen: true,
    mark_only_the_seen_version: true,
    pair_with_all_waits: true,
    pair_with_all_events: true,
    locked_stays_new: true,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Job {
    /// The handler runs, and is about to look for the event.
    Looks,
    /// The handler has not found the event. Its worker is about to snooze the job.
    Snoozes,
    /// The job is delayed until the limit of its wait.
    Rests,
    /// The job rests and is due.
    Due,
    Done,
}

/// A row that passes mark. `version` counts its changes by snoozes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Row {
    seen: bool,
    version: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Emit {
    Idle,
    /// The event is inserted and not committed.
    Open,
    Committed,
}

/// What the snapshot of a pass shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Snapshot {
    event: Option<Row>,
    wait: Option<Row>,
    job_rests: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Pass {
    Idle,
    Begun(Snapshot),
    /// Holds the locks of the rows that it marks and of the job that it makes due, and is about to commit.
    Holds {
        event: bool,
        wait: bool,
        job: bool,
        marks_event: bool,
        marks_wait: bool,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Events {
    emit: Emit,
    event: Option<Row>,
    job: Job,
    wait: Option<Row>,
    passes: [Pass; PASSES],
    /// True while another session has locked the job's row. It does so once.
    is_locked: bool,
    may_lock: bool,
    /// True if a person may still make the resting job due by hand.
    may_retry: bool,
}

impl Events {
    fn new() -> Events {
        Events {
            emit: Emit::Idle,
            event: None,
            job: Job::Looks,
            wait: None,
            passes: [Pass::Idle; PASSES],
            is_locked: false,
            may_lock: true,
            may_retry: true,
        }
    }

    fn with(&self, change: impl FnOnce(&mut Events)) -> Events {
        let mut world = self.clone();
        change(&mut world);
        world
    }

    fn held(&self, of: impl Fn(&Pass) -> bool) -> bool {
        self.passes.iter().any(of)
    }

    fn job_is_held(&self) -> bool {
        self.is_locked || self.held(|pass| matches!(pass, Pass::Holds { job: true, .. }))
    }

    fn wait_is_held(&self) -> bool {
        self.held(|pass| matches!(pass, Pass::Holds { wait: true, .. }))
    }

    fn emits(&self) -> Option<Events> {
        match self.emit {
            Emit::Idle => Some(self.with(|world| world.emit = Emit::Open)),
            Emit::Open => Some(self.with(|world| {
                world.emit = Emit::Committed;
                world.event = Some(Row { seen: false, version: 0 });
            })),
            Emit::Committed => None,
        }
    }

    fn works(&self, rules: Pairing) -> Vec<Events> {
        let mut worlds = Vec::new();
        match self.job {
            Job::Looks if self.event.is_some() => worlds.push(self.with(|world| world.job = Job::Done)),
            Job::Looks => worlds.push(self.with(|world| {
                world.job = Job::Snoozes;
                if !rules.wait_comes_with_the_snooze {
                    world.wait.get_or_insert(Row { seen: false, version: 0 });
                }
            })),
            // The snooze waits for a pass that has locked the wait.
            Job::Snoozes if self.wait_is_held() || self.is_locked => {}
            Job::Snoozes => worlds.push(self.with(|world| {
                world.job = Job::Rests;
                if rules.wait_comes_with_the_snooze {
                    world.wait = Some(match world.wait {
                        Some(row) if rules.snooze_makes_new => Row { seen: false, version: row.version + 1 },
                        Some(row) => row,
                        None => Row { seen: false, version: 0 },
                    });
                }
            })),
            Job::Rests if self.may_retry && !self.job_is_held() => worlds.push(self.with(|world| {
                world.may_retry = false;
                world.job = Job::Due;
            })),
            Job::Due if !self.job_is_held() => worlds.push(self.with(|world| world.job = Job::Looks)),
            Job::Rests | Job::Due | Job::Done => {}
        }
        let rests = matches!(self.job, Job::Rests | Job::Due);
        if self.is_locked {
            worlds.push(self.with(|world| world.is_locked = false));
        } else if self.may_lock && rests && !self.job_is_held() {
            worlds.push(self.with(|world| (world.is_locked, world.may_lock) = (true, false)));
        }
        worlds
    }

    /// One step of a pass. It begins whenever something is new, as after a signal or a heartbeat.
    fn passes(&self, pass: usize, rules: Pairing) -> Vec<Events> {
        let to = |next: Pass| self.with(|world| world.passes[pass] = next);
        let is_new = |row: Option<Row>| row.is_some_and(|row| !row.seen);
        match self.passes[pass] {
            Pass::Idle if is_new(self.event) || is_new(self.wait) => {
                let job_rests = matches!(self.job, Job::Rests | Job::Due);
                vec![to(Pass::Begun(Snapshot { event: self.event, wait: self.wait, job_rests }))]
            }
            Pass::Idle => vec![],
            Pass::Begun(snapshot) => vec![to(self.locks(pass, snapshot, rules))],
            Pass::Holds { job, marks_event, marks_wait, .. } => {
                let committed = self.with(|world| {
                    world.passes[pass] = Pass::Idle;
                    if job && world.job == Job::Rests {
                        world.job = Job::Due;
                    }
                    let mark = |row: &mut Option<Row>| *row = row.map(|row| Row { seen: true, ..row });
                    if marks_event {
                        mark(&mut world.event);
                    }
                    if marks_wait {
                        mark(&mut world.wait);
                    }
                });
                // A pass may also be rolled back.
                vec![committed, to(Pass::Idle)]
            }
        }
    }

    fn locks(&self, pass: usize, snapshot: Snapshot, rules: Pairing) -> Pass {
        let others = |of: &dyn Fn(&Pass) -> bool| {
            self.passes.iter().enumerate().any(|(other, state)| other != pass && of(state))
        };
        let is_new = |shown: Option<Row>, now: Option<Row>, by_version: bool| match (shown, now) {
            (Some(shown), Some(now)) => !shown.seen && !now.seen && (!by_version || shown.version == now.version),
            (None, Some(now)) => !rules.mark_only_what_is_seen && !now.seen,
            _ => false,
        };
        let event = is_new(snapshot.event, self.event, false)
            && !others(&|state| matches!(state, Pass::Holds { event: true, .. }));
        let wait = is_new(snapshot.wait, self.wait, rules.mark_only_the_seen_version)
            && !others(&|state| matches!(state, Pass::Holds { wait: true, .. }));
        let (sees_event, sees_wait) = (snapshot.event.is_some(), snapshot.wait.is_some());
        let is_new_pair = match (event, wait) {
            (true, true) => true,
            (true, false) => rules.pair_with_all_waits,
            (false, true) => rules.pair_with_all_events,
            (false, false) => false,
        };
        let is_pair = is_new_pair && sees_event && sees_wait;
        let rests = matches!(self.job, Job::Rests | Job::Due);
        let job = is_pair && snapshot.job_rests && rests && !self.job_is_held();
        let is_left = is_pair && snapshot.job_rests && !job && rules.locked_stays_new;
        Pass::Holds { event, wait, job, marks_event: event && !is_left, marks_wait: wait && !is_left }
    }
}

impl Model for Events {
    type Rules = Pairing;

    fn next(&self, rules: Pairing) -> Vec<Events> {
        let passes = (0..PASSES).flat_map(|pass| self.passes(pass, rules));
        self.emits().into_iter().chain(self.works(rules)).chain(passes).collect()
    }

    /// The event is there, its job rests, and nothing is left that could wake the job.
    fn is_bad(&self) -> bool {
        let is_marked = |row: Option<Row>| row.is_none_or(|row| row.seen);
        self.event.is_some()
            && self.job == Job::Rests
            && self.passes == [Pass::Idle; PASSES]
            && is_marked(self.event)
            && is_marked(self.wait)
    }
}

#[test]
fn no_interleaving_loses_an_event() {
    let count = explore(Events::new(), PAIRING).unwrap_or_else(|lost| panic!("lost: {lost:?}"));
    assert!(count > 1000, "only {count} worlds were visited");
}

#[test]
fn every_rule_of_pairing_is_needed() {
    let without = [
        ("writing the wait with the snooze", Pairing { wait_comes_with_the_snooze: false, ..PAIRING }),
        ("making the wait new at a snooze", Pairing { snooze_makes_new: false, ..PAIRING }),
        ("marking only what the snapshot sees", Pairing { mark_only_what_is_seen: false, ..PAIRING }),
        ("marking only the version that it sees", Pairing { mark_only_the_seen_version: false, ..PAIRING }),
        ("pairing with all waits", Pairing { pair_with_all_waits: false, ..PAIRING }),
        ("pairing with all events", Pairing { pair_with_all_events: false, ..PAIRING }),
        ("leaving the pair of a locked job", Pairing { locked_stays_new: false, ..PAIRING }),
    ];
    for (rule, rules) in without {
        assert!(explore(Events::new(), rules).is_err(), "no event is lost without {rule}");
    }
}

/// The rules of recording a step. The test drops each rule in turn.
#[derive(Clone, Copy)]
struct Recording {
    /// The statement locks the job's row, and then checks the reservation.
    fence_locks: bool,
    /// A step that is recorded already stays as it is.
    first_stays: bool,
    /// The commit waits for the disk.
    is_durable: bool,
    /// A later attempt reads the recorded steps before it runs one.
    reads_first: bool,
}

const RECORDING: Recording = Recording { fence_locks: true, first_stays: true, is_durable: true, reads_first: true };

/// How far a worker is with the one step of the job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Worker {
    /// Has not claimed the job.
    Idle,
    Begins,
    /// The step's code has run.
    HasRun,
    /// The statement has checked the reservation.
    HasChecked,
    /// The handler goes on with this value: that of the worker with this number.
    GoesOn(usize),
    /// Has learned that it no longer holds the job.
    Stopped,
}

/// Two workers: the first one freezes at any time, and is declared dead; the second one claims the job then. A crash of
/// the server may undo commits that are not on the disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Steps {
    workers: [Worker; 2],
    /// The worker whose reservation stands.
    holder: usize,
    /// The worker that has locked the job's row.
    locked_by: Option<usize>,
    /// The recorded value, which is that of the worker with this number, and whether it is on the disk.
    recorded: Option<(usize, bool)>,
    /// True once a worker has recorded a step after it was declared dead.
    came_late: bool,
    may_crash: bool,
    may_repeat: bool,
}

impl Steps {
    fn new() -> Steps {
        Steps {
            workers: [Worker::Begins, Worker::Idle],
            holder: 0,
            locked_by: None,
            recorded: None,
            came_late: false,
            may_crash: true,
            may_repeat: true,
        }
    }

    fn works(&self, worker: usize, rules: Recording) -> Vec<Steps> {
        let mut next = self.clone();
        match self.workers[worker] {
            Worker::Idle | Worker::Stopped => return vec![],
            Worker::Begins => {
                let known = self.recorded.filter(|_| rules.reads_first && worker == 1);
                next.workers[worker] = known.map_or(Worker::HasRun, |(value, _)| Worker::GoesOn(value));
            }
            Worker::HasRun if rules.fence_locks && self.locked_by.is_some() => return vec![],
            Worker::HasRun if self.holder != worker => next.workers[worker] = Worker::Stopped,
            Worker::HasRun => {
                next.workers[worker] = Worker::HasChecked;
                next.locked_by = rules.fence_locks.then_some(worker);
            }
            Worker::HasChecked => {
                next.came_late |= self.holder != worker;
                let value = self.recorded.filter(|_| rules.first_stays).map_or(worker, |(value, _)| value);
                next.recorded = Some((value, rules.is_durable));
                next.workers[worker] = Worker::GoesOn(value);
                next.locked_by = None;
                // The answer may be lost, and the worker then tries again.
                if self.may_repeat {
                    let repeats = Worker::HasRun;
                    let mut again = next.clone();
                    (again.workers[worker], again.may_repeat) = (repeats, false);
                    return vec![next, again];
                }
            }
            Worker::GoesOn(_) => return vec![],
        }
        vec![next]
    }
}

impl Model for Steps {
    type Rules = Recording;

    fn next(&self, rules: Recording) -> Vec<Steps> {
        let mut worlds: Vec<Steps> = (0..2).flat_map(|worker| self.works(worker, rules)).collect();
        // A rescue passes over a locked row.
        if self.holder == 0 && self.locked_by.is_none() {
            let mut rescued = self.clone();
            (rescued.holder, rescued.workers[1]) = (1, Worker::Begins);
            worlds.push(rescued);
        }
        if self.may_crash && self.locked_by.is_none() {
            let recorded = self.recorded.filter(|(_, is_on_disk)| *is_on_disk);
            worlds.push(Steps { may_crash: false, recorded, ..self.clone() });
        }
        worlds
    }

    /// A dead worker has recorded a step; or a handler goes on with a value that is not the recorded one.
    fn is_bad(&self) -> bool {
        let differs = |worker: &Worker| match worker {
            Worker::GoesOn(value) => self.recorded.is_none_or(|(recorded, _)| recorded != *value),
            _ => false,
        };
        self.came_late || self.workers.iter().any(differs)
    }
}

#[test]
fn no_interleaving_records_a_step_late_or_twice() {
    let count = explore(Steps::new(), RECORDING).unwrap_or_else(|bad| panic!("bad: {bad:?}"));
    assert!(count > 20, "only {count} worlds were visited");
}

#[test]
fn every_rule_of_recording_is_needed() {
    let without = [
        ("a fence that locks", Recording { fence_locks: false, ..RECORDING }),
        ("keeping the first value", Recording { first_stays: false, reads_first: false, ..RECORDING }),
        ("a commit that waits for the disk", Recording { is_durable: false, ..RECORDING }),
    ];
    for (rule, rules) in without {
        assert!(explore(Steps::new(), rules).is_err(), "no step is recorded late or twice without {rule}");
    }
}
