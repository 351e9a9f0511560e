//! Who visits the dashboard, and what a visitor may do.

use std::fmt;

/// One thing that a visitor may do. [`Access`] is a set of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Right {
    /// See the pages, without payloads, results, metadata and progress.
    See,
    /// See payloads, results, metadata and progress, and filter by payload.
    SeePayloads,
    /// Make delayed jobs due, and run finished jobs again.
    Retry,
    /// Cancel jobs.
    Cancel,
    /// Revive dead jobs.
    Revive,
    /// Permanently delete dead jobs.
    Purge,
    /// Change waiting and dead jobs: queue, priority, due time, payload.
    Edit,
    /// Pause and resume queues and schedules.
    Pause,
    /// Change the settings of queues, and remove queues and schedules. How long dead jobs are kept is changed only with
    /// [`Right::Purge`], since upkeep deletes older dead jobs.
    Settings,
    /// Enqueue jobs, and trigger schedules.
    Enqueue,
    /// Stop workers, and change their slots.
    StopWorkers,
}

impl Right {
    /// All rights.
    pub const ALL: [Right; 11] = [
        Right::See,
        Right::SeePayloads,
        Right::Retry,
        Right::Cancel,
        Right::Revive,
        Right::Purge,
        Right::Edit,
        Right::Pause,
        Right::Settings,
        Right::Enqueue,
        Right::StopWorkers,
    ];

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of rights.
///
/// ```
/// use reveille_dashboard::{Access, Right};
///
/// let access = Access::operator().without(Right::SeePayloads).with(Right::Enqueue);
/// assert!(access.allows(Right::Cancel) && !access.allows(Right::Purge));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Access(u16);

impl Access {
    /// No right: every page answers with status 403.
    pub fn none() -> Access {
        Access(0)
    }

    /// See everything, and change nothing.
    pub fn read_only() -> Access {
        Access::none().with(Right::See).with(Right::SeePayloads)
    }

    /// See everything, and repair: all rights but [`Right::Purge`], [`Right::Settings`] and [`Right::Enqueue`].
    pub fn operator() -> Access {
        Access::all().without(Right::Purge).without(Right::Settings).without(Right::Enqueue)
    }

    /// All rights.
    pub fn all() -> Access {
        Right::ALL.into_iter().fold(Access::none(), Access::with)
    }

    /// Returns the set with a right added.
    pub fn with(self, right: Right) -> Access {
        Access(self.0 | right.bit())
    }

    /// Returns the set without a right.
    pub fn without(self, right: Right) -> Access {
        Access(self.0 & !right.bit())
    }

    /// Returns the rights that both sets have.
    pub fn and(self, other: Access) -> Access {
        Access(self.0 & other.0)
    }

    /// Returns true if the set has this right.
    #[must_use]
    pub fn allows(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Right::ALL.into_iter().filter(|right| self.allows(*right))).finish()
    }
}

/// A visitor, as the application's [`authorize`](crate::Dashboard::authorize) knows them.
///
/// ```
/// use reveille_dashboard::{Access, Viewer};
///
/// let viewer = Viewer::new("ada").access(Access::operator()).queues(["mail", "reports"]);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Viewer {
    pub(crate) name: String,
    pub(crate) access: Access,
    pub(crate) queues: Option<Vec<String>>,
}

impl Viewer {
    /// Returns a visitor who may see everything and change nothing. The name stands in the record of actions.
    pub fn new(name: impl Into<String>) -> Viewer {
        Viewer { name: name.into(), access: Access::read_only(), queues: None }
    }

    /// Sets what the visitor may do.
    pub fn access(self, access: Access) -> Viewer {
        Viewer { access, ..self }
    }

    /// Shows the visitor only these queues and their jobs. Without this, the visitor sees all queues.
    pub fn queues<S: Into<String>>(self, queues: impl IntoIterator<Item = S>) -> Viewer {
        Viewer { queues: Some(queues.into_iter().map(Into::into).collect()), ..self }
    }

    /// Returns true if the visitor may see this queue.
    #[must_use]
    pub fn sees(&self, queue: &str) -> bool {
        self.queues.as_ref().is_none_or(|queues| queues.iter().any(|seen| seen == queue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_repairs_and_destroys_nothing() {
        let operator = Access::operator();
        assert!([Right::Retry, Right::Revive, Right::Pause].into_iter().all(|right| operator.allows(right)));
        assert!(![Right::Purge, Right::Settings, Right::Enqueue].into_iter().any(|right| operator.allows(right)));
        assert_eq!(Access::read_only().and(operator), Access::read_only());
        assert_eq!(Right::ALL.into_iter().fold(Access::all(), Access::without), Access::none());
    }

    #[test]
    fn a_visitor_of_some_queues_sees_no_other() {
        let viewer = Viewer::new("ada").queues(["mail"]);
        assert!(viewer.sees("mail") && !viewer.sees("reports"));
        assert!(Viewer::new("ada").sees("reports"));
    }
}
