//! The limits of one queue: they decide which of its due jobs may start.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use super::entries::{ClaimPosition, JobEntry};
use crate::queue::QueueSettings;

/// The time between two starts is 1 % longer than the rate needs, as in `sql/claim_limited.sql`.
const MARGIN: f64 = 1.01;
/// The smallest [tolerance](StartPace::tolerance) of a rate, as in `sql/claim_limited.sql`.
const LEAST_TOLERANCE: f64 = 0.01;

/// The settings of a queue, and the starts that count for its rates.
#[derive(Default)]
pub(super) struct QueueLimits {
    set: QueueSettings,
    /// The time at which an even pace allows the next start, after all starts so far: for the queue (`None`) and for
    /// each key.
    next_at: HashMap<Option<String>, SystemTime>,
    /// The key that had the last turn. The next claim starts with the key after it.
    turn: String,
}

/// The pace of starts that a rate allows.
struct StartPace {
    /// The seconds from one start to the next.
    step: f64,
    /// The seconds by which a job may start earlier than at an even pace.
    tolerance: f64,
}

impl QueueLimits {
    pub(super) fn set(&mut self, new: &QueueSettings) {
        let set = &mut self.set;
        set.max_running = new.max_running.or(set.max_running);
        set.max_running_per_key = new.max_running_per_key.or(set.max_running_per_key);
        set.ordered = new.ordered.or(set.ordered);
        set.rate_limit = new.rate_limit.or(set.rate_limit);
        set.rate_period = new.rate_period.or(set.rate_period);
        set.rate_burst = new.rate_burst.or(set.rate_burst);
        set.rate_per_key = new.rate_per_key.or(set.rate_per_key);
    }

    pub(super) fn are_set(&self) -> bool {
        self.is_by_key() || [self.set.max_running, self.set.rate_limit].iter().any(|limit| limit.flatten().is_some())
    }

    fn is_by_key(&self) -> bool {
        let by_key = [self.set.max_running_per_key, self.set.rate_per_key];
        self.is_ordered() || by_key.iter().any(|limit| limit.flatten().is_some())
    }

    fn is_ordered(&self) -> bool {
        self.set.ordered.unwrap_or_default()
    }

    /// Returns the due jobs that may start now, in the order of claims. `due` are all due jobs of the queue in that
    /// order; `live` are all its waiting and running jobs. The returned jobs count for the limits from this call on.
    pub(super) fn admit<'a>(
        &mut self,
        due: Vec<ClaimPosition>,
        live: impl Iterator<Item = &'a JobEntry>,
        most: usize,
        now: SystemTime,
    ) -> Vec<ClaimPosition> {
        let mut keys: HashMap<i64, &str> = HashMap::new();
        let mut running: HashMap<Option<&str>, usize> = HashMap::new();
        let mut heads: HashMap<&str, i64> = HashMap::new();
        for entry in live {
            let key = entry.stored.job.key.as_deref();
            keys.extend(key.map(|key| (entry.stored.id, key)));
            *running.entry(key).or_default() += usize::from(entry.reservation.is_some());
            heads.extend(key.filter(|key| !heads.contains_key(key)).map(|key| (key, entry.stored.id)));
        }
        let runs = running.values().sum::<usize>();
        let free = self.set.max_running.flatten().map_or(most, |limit| (limit as usize).saturating_sub(runs));
        let room = most.min(free).min(self.tokens(None, now));
        if !self.is_by_key() {
            let admitted: Vec<ClaimPosition> = due.into_iter().take(room).collect();
            self.spend(None, admitted.len(), now);
            return admitted;
        }
        // Keys take turns, starting after the key that had the last turn. Jobs without a key go first, since only the
        // queue's limits apply to them.
        let mut turns: BTreeMap<(bool, Option<&str>), Vec<ClaimPosition>> = BTreeMap::new();
        for position in due {
            let key = keys.get(&position.id).copied();
            turns.entry((key.is_some_and(|key| key <= self.turn.as_str()), key)).or_default().push(position);
        }
        let (mut admitted, mut served) = (Vec::new(), None);
        for ((_, key), positions) in turns {
            let runs = running.get(&key).copied().unwrap_or_default();
            let allowed = key.map_or(usize::MAX, |key| self.allowed(key, runs, now));
            let may =
                |next: &ClaimPosition| !self.is_ordered() || key.is_none_or(|key| heads.get(key) == Some(&next.id));
            let room = allowed.min(room - admitted.len());
            let taken: Vec<ClaimPosition> = positions.into_iter().filter(may).take(room).collect();
            if let Some(key) = key.filter(|_| !taken.is_empty()) {
                self.spend(Some(key), taken.len(), now);
                served = Some(key.to_owned());
            }
            admitted.extend(taken);
        }
        self.spend(None, admitted.len(), now);
        self.turn = served.unwrap_or(std::mem::take(&mut self.turn));
        admitted.sort();
        admitted
    }

    /// Returns the number of jobs of a key that may start.
    fn allowed(&self, key: &str, running: usize, now: SystemTime) -> usize {
        let most = if self.is_ordered() { Some(1) } else { self.set.max_running_per_key.flatten() };
        let free = most.map_or(usize::MAX, |most| (most as usize).saturating_sub(running));
        free.min(self.tokens(Some(key), now))
    }

    /// Returns the pace that the rate of a key or of the queue sets; `None` if there is no rate.
    fn pace(&self, key: Option<&str>) -> Option<StartPace> {
        let rate = if key.is_some() { self.set.rate_per_key } else { self.set.rate_limit };
        let period = self.set.rate_period.flatten().unwrap_or(Duration::from_secs(1));
        let step = MARGIN * period.as_secs_f64() / f64::from(rate.flatten()?);
        let burst = self.set.rate_burst.flatten().unwrap_or(1);
        Some(StartPace { step, tolerance: (f64::from(burst.saturating_sub(1)) * step).max(LEAST_TOLERANCE) })
    }

    /// Returns the seconds by which the starts so far, of a key or of the queue, are earlier than at an even pace.
    fn ahead(&self, key: Option<&str>, now: SystemTime, pace: &StartPace) -> f64 {
        let next_at = self.next_at.get(&key.map(str::to_owned));
        let ahead = next_at.and_then(|at| at.duration_since(now).ok()).unwrap_or_default();
        ahead.as_secs_f64().min(pace.tolerance + pace.step)
    }

    /// Returns the number of jobs that the rate allows to start now.
    fn tokens(&self, key: Option<&str>, now: SystemTime) -> usize {
        let Some(pace) = self.pace(key) else { return usize::MAX };
        let left = (pace.tolerance - self.ahead(key, now, &pace)) / pace.step + 1e-6;
        if left < 0.0 { 0 } else { left as usize + 1 }
    }

    fn spend(&mut self, key: Option<&str>, starts: usize, now: SystemTime) {
        let Some(pace) = self.pace(key).filter(|_| starts > 0) else { return };
        let ahead = self.ahead(key, now, &pace) + starts as f64 * pace.step;
        self.next_at.retain(|_, next_at| *next_at > now);
        self.next_at.insert(key.map(str::to_owned), now + Duration::from_secs_f64(ahead));
    }

    /// Returns the earliest time at which a rate allows a further start. Rates that allow a start now do not count.
    pub(super) fn next_start(&self, now: SystemTime) -> Option<SystemTime> {
        let starts = self.next_at.iter().filter_map(|(key, next_at)| {
            let pace = self.pace(key.as_deref())?;
            next_at.checked_sub(Duration::from_secs_f64(pace.tolerance))
        });
        starts.filter(|at| *at > now).min()
    }
}
