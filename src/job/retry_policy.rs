//! Retry policies: the delay of a retry by the number of failures, with jitter.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The rule for the delay between a failure and the retry. [`Job::retry_policy`](crate::Job::retry_policy) sets the
/// policy of a kind.
///
/// The default policy is exponential: 1 s, 2 s, 4 s, … up to a day, each with up to 10 % of jitter. With the default of
/// 20 attempts, the last attempt comes about four days after the first.
///
/// ```
/// use reveille::job::RetryPolicy;
/// use std::time::Duration;
///
/// let policy = RetryPolicy::exponential(Duration::from_secs(1), Duration::from_secs(60)).jitter(0.0);
/// assert_eq!(policy.delay(1), Duration::from_secs(1));
/// assert_eq!(policy.delay(4), Duration::from_secs(8));
/// assert_eq!(policy.delay(400), Duration::from_secs(60));
/// ```
#[derive(Clone)]
pub struct RetryPolicy {
    curve: Curve,
    jitter: f64,
}

#[derive(Clone)]
enum Curve {
    Exponential { first: Duration, longest: Duration },
    Fixed(Duration),
    Custom(Arc<dyn Fn(u32) -> Duration + Send + Sync>),
}

impl RetryPolicy {
    /// Makes a policy with a delay of `first` after the first failure. The delay doubles with each further failure, up
    /// to `longest`, and has 10 % of jitter.
    pub fn exponential(first: Duration, longest: Duration) -> RetryPolicy {
        RetryPolicy { curve: Curve::Exponential { first, longest }, jitter: 0.1 }
    }

    /// Makes a policy with the same delay after each failure, without jitter.
    pub fn fixed(delay: Duration) -> RetryPolicy {
        RetryPolicy { curve: Curve::Fixed(delay), jitter: 0.0 }
    }

    /// Makes a policy whose delay is a function of the number of failures, without jitter. The number is 1 after the
    /// first failure.
    pub fn custom(curve: impl Fn(u32) -> Duration + Send + Sync + 'static) -> RetryPolicy {
        RetryPolicy { curve: Curve::Custom(Arc::new(curve)), jitter: 0.0 }
    }

    /// Makes each delay longer or shorter at random, by up to `share` of the delay, so that jobs that failed together
    /// are not due together again. `share` is 0 to 1.
    pub fn jitter(mut self, share: f64) -> RetryPolicy {
        self.jitter = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self
    }

    /// Returns the delay after this number of failures, with jitter.
    pub fn delay(&self, failures: u32) -> Duration {
        spread(self.curve.delay(failures.max(1)), self.jitter, fastrand::f64())
    }
}

impl Curve {
    fn delay(&self, failures: u32) -> Duration {
        match self {
            Curve::Exponential { first, longest } => {
                let factor = 2u32.checked_pow(failures - 1).unwrap_or(u32::MAX);
                first.saturating_mul(factor).min(*longest)
            }
            Curve::Fixed(delay) => *delay,
            Curve::Custom(curve) => curve(failures),
        }
    }
}

/// Makes a delay longer or shorter by up to `share` of the delay. `chance`, in 0..1, picks the new delay in this range.
fn spread(delay: Duration, share: f64, chance: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * (1.0 + share * (2.0 * chance - 1.0))).unwrap_or(delay)
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy::exponential(Duration::from_secs(1), Duration::from_secs(24 * 60 * 60))
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RetryPolicy");
        match &self.curve {
            Curve::Exponential { first, longest } => debug.field("first", first).field("longest", longest),
            Curve::Fixed(delay) => debug.field("fixed", delay),
            Curve::Custom(_) => debug.field("custom", &"…"),
        };
        debug.field("jitter", &self.jitter).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_exponential_delay_doubles_up_to_the_longest() {
        let policy = RetryPolicy::exponential(SECOND, 60 * SECOND).jitter(0.0);
        let delays: Vec<u64> = (1..=8).map(|failures| policy.delay(failures).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(policy.delay(u32::MAX), 60 * SECOND);
    }

    #[test]
    fn twenty_default_attempts_spread_over_days() {
        let policy = RetryPolicy::default().jitter(0.0);
        let total: Duration = (1..20).map(|failures| policy.delay(failures)).sum();
        assert!((3..5).contains(&(total.as_secs() / 86_400)), "{total:?}");
    }

    #[test]
    fn jitter_stays_within_its_share() {
        assert_eq!(spread(10 * SECOND, 0.1, 0.0), 9 * SECOND);
        assert_eq!(spread(10 * SECOND, 0.1, 0.5), 10 * SECOND);
        assert_eq!(spread(10 * SECOND, 0.1, 1.0), 11 * SECOND);
        assert_eq!(spread(Duration::MAX, 1.0, 1.0), Duration::MAX, "an overflow keeps the delay");
    }

    #[test]
    fn a_fixed_delay_never_changes() {
        let policy = RetryPolicy::fixed(3 * SECOND);
        assert_eq!((policy.delay(1), policy.delay(99)), (3 * SECOND, 3 * SECOND));
    }

    #[test]
    fn a_custom_curve_sees_the_number_of_failures() {
        let policy = RetryPolicy::custom(|failures| failures * SECOND);
        assert_eq!(policy.delay(7), 7 * SECOND);
        assert_eq!(policy.delay(0), SECOND, "there is no delay before the first failure");
    }
}
