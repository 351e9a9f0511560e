//! The chart of dead jobs over time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maud::{Markup, html};
use reveille::admin::{DeadJobs, Deaths};

use crate::draw::chart::{self, Series};
use crate::draw::{number, parts};
use crate::readings::Reading;
use crate::visit::Visit;

/// The time that a chart covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
}

impl Period {
    const ALL: [Period; 4] = [Period::Hour, Period::Day, Period::Week, Period::Month];

    /// Returns the period that the page's address names, or the last day.
    pub fn of(visit: &Visit) -> Period {
        let asked = visit.param("over");
        Period::ALL.into_iter().find(|period| Some(period.name()) == asked.as_deref()).unwrap_or(Period::Day)
    }

    fn name(self) -> &'static str {
        match self {
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Period::Hour => "Last hour",
            Period::Day => "Last day",
            Period::Week => "Last week",
            Period::Month => "Last month",
        }
    }

    /// Returns the length of a bar in seconds, and the number of bars.
    fn bars(self) -> (u64, u16) {
        match self {
            Period::Hour => (60, 60),
            Period::Day => (1800, 48),
            Period::Week => (3 * 3600, 56),
            Period::Month => (86_400, 30),
        }
    }

    /// Returns the beginning of each bar, oldest first. The bars begin at full minutes, hours or days in UTC.
    fn starts(self, now: SystemTime) -> Vec<SystemTime> {
        let (seconds, bars) = self.bars();
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let start = |age: u64| UNIX_EPOCH + Duration::from_secs((now / seconds).saturating_sub(age) * seconds);
        (0..u64::from(bars)).rev().map(start).collect()
    }
}

pub async fn read(visit: &Visit, of: &DeadJobs, period: Period) -> Reading<Vec<Deaths>> {
    let (seconds, bars) = period.bars();
    let of = of.clone();
    let name = format!("deaths {} {of:?}", period.name());
    visit.read(name, move |admin| async move { admin.deaths(&of, Duration::from_secs(seconds), bars).await }).await
}

/// Draws the links to the periods. `query` is the rest of the page's query.
pub fn tabs(visit: &Visit, page: &str, query: &str, period: Period) -> Markup {
    let tab = |one: Period| {
        let and = if query.is_empty() { "" } else { "&" };
        (one.title(), format!("{page}?{query}{and}over={}", one.name()), one == period)
    };
    parts::tabs(visit, "Time", &Period::ALL.map(tab))
}

pub fn chart(title: &str, deaths: &[Deaths], period: Period) -> Markup {
    let starts = period.starts(SystemTime::now());
    let sum = |place: usize| deaths.iter().filter_map(|group| group.bars.get(place)).sum::<u64>() as f64;
    let values: Vec<f64> = (0..starts.len()).map(sum).collect();
    let series = [Series { class: "bad", name: "died", values: &values }];
    html! {
        (chart::bars(title, &series, &starts, |jobs| number::count(jobs as u64)))
        @if deaths.iter().any(|group| group.is_cut) {
            p.hint { "Of each group, only the 50,000 jobs that died last are in the chart." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::time;

    #[test]
    fn bars_begin_at_full_times() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let ends = |period: Period| {
            let starts = period.starts(now);
            [starts[0], starts[starts.len() - 1]].map(time::utc)
        };
        assert_eq!(ends(Period::Hour), ["2026-11-18 10:07:00 UTC", "2026-11-18 11:06:00 UTC"]);
        assert_eq!(ends(Period::Day), ["2026-11-17 11:30:00 UTC", "2026-11-18 11:00:00 UTC"]);
        assert_eq!(ends(Period::Month)[1], "2026-11-18 00:00:00 UTC");
    }
}
