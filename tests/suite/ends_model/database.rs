//! The model's Postgres: rows, row locks that last until the commit, and snapshots, in read committed.

/// A row. A job has one row, which tells the job's table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Row {
    Missing,
    Blocked { needs: i8 },
    Live { linked: bool },
    Dead { linked: bool },
    Finished(Outcome),
    End(Outcome),
    Dependency(Decision),
    Workflow(Workflow),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    Completed,
    Dead,
    Cancelled,
    Revived,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Decision {
    Open,
    Met,
    Held,
    Skipped,
}

/// What the waiter waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WaitsFor {
    Completed,
    /// One completed prerequisite is enough.
    FirstCompleted,
    Dead,
    Any,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    Running,
    Cancelling,
    Cancelled,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Workflow {
    pub state: State,
    pub sealed: bool,
    /// The number of jobs that the cancel has passed, in the order A, B, the waiter.
    pub passed: usize,
    /// The outcomes of A and B, as far as their ends are applied.
    pub outcomes: [Option<Outcome>; 2],
}

// The rows: two prerequisites, the job that waits for them, their ends, the dependencies on them, and their workflow.
pub const A: usize = 0;
pub const B: usize = 1;
pub const WAITER: usize = 2;
pub const ENDS: [usize; 2] = [3, 4];
pub const DEPENDENCIES: [usize; 2] = [5, 6];
pub const WORKFLOW: usize = 7;
pub type Rows = [Row; 8];

/// A session of the model, and how far it has come.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Session {
    /// The number of the next statement. At 0, the session has no open transaction.
    pub step: u8,
    /// The number of moves that a life has made.
    pub moves: usize,
    /// The snapshot of the next statement, if the statement began before it came to its locks.
    pub snapshot: Option<Rows>,
    /// The prerequisites whose ends an applier has taken.
    pub taken: [bool; 2],
    /// The end that an add notes once more.
    pub ended: Option<Outcome>,
}

/// The `step` of a session that has done its work.
const STOPPED: u8 = u8::MAX;

/// What can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Harm {
    /// Whatever happens next, a job stays blocked, or a workflow stays cancelling.
    Stuck,
    /// A job starts before the jobs that it waits for have ended, or before the seal.
    Early,
    /// A job of a workflow starts after the cancel, or is added after it.
    RunsCancelled,
    /// A job is revived, although a job that waited for its death runs or has run.
    RunsBoth,
    /// An add is refused without a reason.
    Refused,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// The committed rows.
    rows: Rows,
    /// For each locked row, the session that has locked the row, and the value that its commit writes.
    locks: [Option<(usize, Row)>; 8],
    pub waits_for: WaitsFor,
    pub sessions: Vec<Session>,
    pub harm: Option<Harm>,
}

impl World {
    pub fn new(rows: Rows, waits_for: WaitsFor, sessions: usize) -> World {
        World { rows, locks: [None; 8], waits_for, sessions: vec![Session::default(); sessions], harm: None }
    }

    pub fn committed(&self) -> &Rows {
        &self.rows
    }

    /// Returns what a new statement of this session sees.
    pub fn view(&self, me: usize) -> Rows {
        std::array::from_fn(|row| match self.locks[row] {
            Some((holder, value)) if holder == me => value,
            _ => self.rows[row],
        })
    }

    /// Locks a row, and returns the newest value. Returns nothing if another session has locked the row. The caller
    /// then makes no step, and so waits; or it skips the row.
    pub fn lock(&mut self, me: usize, row: usize) -> Option<Row> {
        let (holder, value) = *self.locks[row].get_or_insert((me, self.rows[row]));
        (holder == me).then_some(value)
    }

    /// Writes a row under its lock. The commit makes the value visible.
    pub fn write(&mut self, me: usize, row: usize, value: Row) -> Option<()> {
        self.lock(me, row)?;
        self.locks[row] = Some((me, value));
        Some(())
    }

    /// Commits one row alone, as if another transaction had written the row.
    pub fn commit_row(&mut self, me: usize, row: usize) {
        if let Some((_, value)) = self.locks[row].take_if(|(holder, _)| *holder == me) {
            self.rows[row] = value;
        }
    }

    pub fn has_locked(&self, me: usize, row: usize) -> bool {
        self.locks[row].is_some_and(|(holder, _)| holder == me)
    }

    /// Commits, and goes on with the statement `step`.
    pub fn commit(&mut self, me: usize, step: u8) {
        let before = self.rows;
        self.rows = self.view(me);
        self.harm = self.harm.or(self.harm_since(&before));
        self.roll_back(me, step);
    }

    pub fn commit_and_stop(&mut self, me: usize) {
        self.commit(me, STOPPED);
    }

    pub fn roll_back_and_stop(&mut self, me: usize) {
        self.roll_back(me, STOPPED);
    }

    fn roll_back(&mut self, me: usize, step: u8) {
        for lock in &mut self.locks {
            lock.take_if(|(holder, _)| *holder == me);
        }
        self.sessions[me] = Session { step, moves: self.sessions[me].moves, ..Session::default() };
    }

    /// Returns the world after a crash of the session. If it had no transaction open, nothing changes.
    pub fn crash(&self, me: usize) -> Option<World> {
        let step = self.sessions[me].step;
        let mut world = self.clone();
        world.roll_back(me, 0);
        (step != 0 && step != STOPPED).then_some(world)
    }

    pub fn has_stopped(&self, session: usize) -> bool {
        self.sessions[session].step == STOPPED
    }

    /// Returns the harm that a commit has done.
    fn harm_since(&self, before: &Rows) -> Option<Harm> {
        let (rows, is_live) = (&self.rows, |row: Row| matches!(row, Row::Live { .. }));
        let starts = is_live(rows[WAITER]) && !is_live(before[WAITER]);
        let has_run = is_live(rows[WAITER]) || rows[WAITER] == Row::Finished(Outcome::Completed);
        let is_open = workflow_of(rows).is_some_and(|workflow| !workflow.sealed);
        if is_live(rows[WAITER]) && (self.waits() || is_open) {
            Some(Harm::Early)
        } else if (starts && state_of(before) != State::Running)
            || (state_of(rows) == State::Cancelled && is_left(rows))
        {
            Some(Harm::RunsCancelled)
        } else if self.waits_for == WaitsFor::Dead && is_live(rows[A]) && has_run {
            Some(Harm::RunsBoth)
        } else {
            None
        }
    }

    /// Returns true if the outcomes that the waiter waits for have not come.
    fn waits(&self) -> bool {
        let mut dependencies = DEPENDENCIES.iter().map(|row| self.rows[*row]).filter(|row| *row != Row::Missing);
        let met = Row::Dependency(Decision::Met);
        match self.waits_for {
            WaitsFor::FirstCompleted => dependencies.all(|row| row != met),
            _ => dependencies.any(|row| row != met),
        }
    }
}

/// Returns true if a job has not ended. A job whose revival is not applied does not count.
fn is_left(rows: &Rows) -> bool {
    [A, B, WAITER].into_iter().any(|job| {
        let is_revived = ENDS.get(job).is_some_and(|end| rows[*end] == Row::End(Outcome::Revived));
        matches!(rows[job], Row::Live { .. } | Row::Blocked { .. }) && !is_revived
    })
}

pub fn workflow_of(rows: &Rows) -> Option<Workflow> {
    match rows[WORKFLOW] {
        Row::Workflow(workflow) => Some(workflow),
        _ => None,
    }
}

/// Returns the state of the workflow. Without a workflow, nothing is cancelled.
pub fn state_of(rows: &Rows) -> State {
    workflow_of(rows).map_or(State::Running, |workflow| workflow.state)
}
