//! What a store answers to a settlement.

/// What became of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is recorded.
    Counted,
    /// The reservation no longer stands: the ending does not count.
    Lost,
    /// Somebody else has locked the job, who is named as far as is known. The reservation stands: settle it again
    /// later.
    Locked(String),
}

impl Settled {
    /// Whether it is recorded.
    pub fn is_counted(&self) -> bool {
        *self == Settled::Counted
    }

    /// Whether it is to be tried again.
    pub fn is_locked(&self) -> bool {
        matches!(self, Settled::Locked(_))
    }
}
