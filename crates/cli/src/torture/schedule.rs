//! The schedule of faults. It is generated from a seed, so a run can be repeated.

use std::time::Duration;

use clap::ValueEnum;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A worker is killed with SIGKILL; another starts within 1.5 s.
    Kill,
    /// A worker is stopped with SIGSTOP for up to 10 s.
    Freeze,
    /// A worker is stopped until other workers have declared it dead.
    FreezeLong,
    /// A worker starts with a clock that is up to three days off.
    ShiftClock,
    /// The sessions of listeners are terminated.
    CutListeners,
    /// The sessions that claim and settle are terminated.
    CutPools,
    /// The sessions of heartbeats are terminated.
    CutHeartbeats,
    /// The sessions of producers are terminated.
    CutProducers,
    /// A worker's network delays each packet.
    NetDelay,
    /// A worker's network refuses connections, old and new.
    NetRefuse,
    /// A worker's connections are half-closed.
    NetHalfClose,
    /// A worker's network swallows all packets.
    NetBlackHole,
    /// A worker's network swallows the answers on open connections.
    NetSwallowAnswers,
    /// The server is stopped at once, as by a crash, and started again.
    Crash,
    /// All processes of the server are stopped with SIGSTOP for up to 5 s.
    Stall,
    /// A transaction holds a snapshot, so that dead rows pile up.
    Snapshot,
    /// All connections of the server are taken.
    Exhaust,
    /// A role without rights floods the channels on which workers listen.
    HostileNotifications,
    /// A role without rights holds every advisory lock that Reveille uses.
    HostileLocks,
    /// A role without rights creates operators and functions in `public`. A worker that called one would lend it its
    /// rights.
    HostileOperators,
    /// A transaction of an application locks the rows of running jobs.
    LockRows,
    /// An odd row is inserted, or the counts of a running job are reset.
    OddRow,
    /// A worker starts with a pipe as its log. The pipe is closed within 3 s.
    CloseLog,
}

impl Kind {
    fn habit(self) -> Habit {
        let ms = Duration::from_millis;
        let (per_10_minutes, shortest, longest) = match self {
            Kind::Kill => (110, ms(0), ms(1500)),
            Kind::Freeze => (40, ms(500), ms(10_000)),
            Kind::FreezeLong => (12, ms(34_000), ms(40_000)),
            Kind::ShiftClock => (14, ms(0), ms(500)),
            Kind::CutListeners | Kind::CutPools | Kind::CutHeartbeats => (45, ms(0), ms(0)),
            Kind::CutProducers => (30, ms(0), ms(0)),
            Kind::NetDelay => (30, ms(1000), ms(8000)),
            Kind::NetRefuse => (30, ms(100), ms(6000)),
            Kind::NetHalfClose | Kind::NetSwallowAnswers => (25, ms(500), ms(3000)),
            Kind::NetBlackHole => (20, ms(1000), ms(12_000)),
            Kind::Crash => (12, ms(0), ms(0)),
            Kind::Stall => (12, ms(1000), ms(5000)),
            Kind::Snapshot => (14, ms(5000), ms(25_000)),
            Kind::Exhaust => (14, ms(1000), ms(4000)),
            Kind::HostileNotifications => (15, ms(500), ms(4000)),
            Kind::HostileLocks => (15, ms(2000), ms(10_000)),
            Kind::HostileOperators => (15, ms(2000), ms(10_000)),
            Kind::LockRows => (25, ms(1000), ms(20_000)),
            Kind::OddRow => (84, ms(0), ms(0)),
            Kind::CloseLog => (12, ms(0), ms(3000)),
        };
        Habit { per_10_minutes, shortest, longest }
    }

    /// Returns the kind's name in figures.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().replace('-', "_")).unwrap_or_default()
    }
}

/// The number of faults of a kind in ten minutes, and the time that one fault lasts.
struct Habit {
    per_10_minutes: u32,
    shortest: Duration,
    longest: Duration,
}

/// One fault of the schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The time from the beginning of the run to the beginning of the fault.
    pub at: Duration,
    pub kind: Kind,
    /// The index of the worker that the fault affects, if the fault affects a single worker.
    pub place: usize,
    pub lasts: Duration,
    /// A random number for all other choices of the fault.
    pub dice: u64,
}

/// Returns the faults of a run in the order of their times. Each kind in `kinds` comes `each` times. By default, a kind
/// comes at its usual rate.
pub fn schedule(seed: u64, length: Duration, kinds: &[Kind], each: Option<u32>, workers: usize) -> Vec<Fault> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut faults = Vec::new();
    for &kind in kinds {
        let Habit { per_10_minutes, shortest, longest } = kind.habit();
        let usual = (f64::from(per_10_minutes) * length.as_secs_f64() / 600.0).round().max(1.0);
        let count = each.unwrap_or(usual as u32);
        for part in 0..count {
            // Puts one fault into each of `count` equal parts of the run, so that each kind comes throughout the run.
            let at = length.mul_f64((f64::from(part) + random.f64()) / f64::from(count));
            let lasts = shortest + (longest - shortest).mul_f64(random.f64());
            faults.push(Fault { at, kind, place: random.usize(0..workers), lasts, dice: random.u64(..) });
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_schedule() {
        let ten_minutes = Duration::from_secs(600);
        let run = |seed| schedule(seed, ten_minutes, Kind::value_variants(), None, 4);
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        assert!(run(7).len() >= 500);
        for kind in Kind::value_variants() {
            assert!(run(7).iter().filter(|fault| fault.kind == *kind).count() >= 10, "{kind:?}");
        }
        assert_eq!(schedule(7, ten_minutes, &[Kind::Crash], Some(20), 4).len(), 20);
    }
}
