//! Which attempt at a job a handler makes.

/// Which attempt at a job this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The number of the attempt, from 1. Each reservation of the job counts.
    pub number: u32,
    /// How many earlier attempts have failed.
    pub failures: u32,
    /// The number of failures at which the job is dead.
    pub max_attempts: u32,
}

impl Attempt {
    /// Whether the job is dead if this attempt fails.
    pub fn is_last(&self) -> bool {
        self.failures + 1 >= self.max_attempts
    }
}
