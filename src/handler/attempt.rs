//! The number of an attempt, and the failures before it.

/// The number of an attempt, and the failures before it. A handler may take this as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The number of the attempt, from 1. Each reservation of the job counts as an attempt.
    pub number: u32,
    /// The number of earlier attempts that have failed.
    pub failures: u32,
    /// The number of failures at which the job is dead.
    pub max_attempts: u32,
}

impl Attempt {
    /// True if a failure of this attempt makes the job dead.
    pub fn is_last(&self) -> bool {
        self.failures + 1 >= self.max_attempts
    }
}
