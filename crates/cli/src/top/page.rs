//! The pages of `top`, and the lists that open from their rows.

use reveille::admin::OverviewList;

use super::row::Row;

/// A page, which shows one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Page {
    Queues,
    Running,
    Waiting,
    Failing,
    Dead,
    Workers,
    Schedules,
    Limits,
}

impl Page {
    pub const ALL: [Page; 8] = [
        Page::Queues,
        Page::Running,
        Page::Waiting,
        Page::Failing,
        Page::Dead,
        Page::Workers,
        Page::Schedules,
        Page::Limits,
    ];

    pub fn title(self) -> &'static str {
        ["queues", "running", "waiting", "failing", "dead", "workers", "schedules", "limits"][self as usize]
    }

    /// Returns the page whose key is this digit.
    pub fn of_digit(digit: char) -> Option<Page> {
        Page::ALL.get((digit as usize).checked_sub('1' as usize)?).copied()
    }

    /// Returns the page that is `by` pages further. The first page follows the last one.
    pub fn step(self, by: usize) -> Page {
        Page::ALL[(self as usize + by) % Page::ALL.len()]
    }
}

/// A list that `top` shows: a page, or the jobs that belong to a row of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Page(Page),
    /// The waiting jobs of a queue.
    Queue(String),
    /// The running jobs of a worker.
    Worker(i64),
    /// The dead jobs with the same queue, kind and reason.
    Group {
        queue: String,
        kind: String,
        reason: String,
    },
}

/// The data that the model needs beside the queues and their sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Nothing more.
    Queues,
    List(OverviewList),
    Job(i64),
}

impl Place {
    pub fn want(&self) -> Want {
        Want::List(match self.clone() {
            Place::Page(Page::Queues) => return Want::Queues,
            Place::Page(Page::Running) => OverviewList::Running { worker: None },
            Place::Page(Page::Waiting) => OverviewList::Waiting { queue: None },
            Place::Page(Page::Failing) => OverviewList::Failing,
            Place::Page(Page::Dead) => OverviewList::DeadGroups,
            Place::Page(Page::Workers) => OverviewList::Workers,
            Place::Page(Page::Schedules) => OverviewList::Schedules,
            Place::Page(Page::Limits) => OverviewList::Limits,
            Place::Queue(queue) => OverviewList::Waiting { queue: Some(queue) },
            Place::Worker(worker) => OverviewList::Running { worker: Some(worker) },
            Place::Group { queue, kind, reason } => OverviewList::DeadJobs { queue, kind, reason },
        })
    }

    /// Returns the smallest number of rows that suggests that the database has more rows than it returned.
    pub fn rows_if_more(&self) -> usize {
        200
    }
}

/// The thing that a row of a list stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Queue {
        name: String,
        paused: bool,
    },
    Job(i64),
    /// The dead jobs with the same queue, kind and reason.
    Group {
        queue: String,
        kind: String,
        reason: String,
        last: Option<i64>,
    },
    Worker(i64),
    Schedule {
        name: String,
        paused: bool,
    },
    /// The limits of a queue.
    Limits(String),
}

impl Subject {
    pub fn of(place: &Place, row: &Row) -> Subject {
        let text = |column| row.text(column).unwrap_or_default();
        match place {
            Place::Page(Page::Queues) => Subject::Queue { name: text("queue"), paused: row.is("paused") },
            Place::Page(Page::Limits) => Subject::Limits(text("queue")),
            Place::Page(Page::Workers) => Subject::Worker(row.id("worker").unwrap_or_default()),
            Place::Page(Page::Schedules) => Subject::Schedule { name: text("name"), paused: row.is("paused") },
            Place::Page(Page::Dead) => Subject::Group {
                queue: text("queue"),
                kind: text("kind"),
                reason: text("reason"),
                last: row.id("last_id"),
            },
            _ => Subject::Job(row.id("id").unwrap_or_default()),
        }
    }

    /// Returns true if both stand for the same thing, maybe in different states.
    pub fn is_same(&self, other: &Subject) -> bool {
        match (self, other) {
            (Subject::Queue { name, .. }, Subject::Queue { name: other, .. }) => name == other,
            (Subject::Schedule { name, .. }, Subject::Schedule { name: other, .. }) => name == other,
            (Subject::Group { queue, kind, reason, .. }, Subject::Group { queue: q, kind: k, reason: r, .. }) => {
                (queue, kind, reason) == (q, k, r)
            }
            _ => self == other,
        }
    }
}
