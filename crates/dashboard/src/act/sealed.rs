//! The start of a change of many jobs. A form carries it with a seal, so that the change meets the jobs that the page
//! has counted, and no others.

use std::time::Duration;

use maud::{Markup, html};
use reveille::admin::{BulkAction, Filter, JobCount, Start};

use crate::draw::number;
use crate::guard::Refusal;
use crate::visit::Visit;

/// What is typed to purge jobs of which there are too many to count.
const ALL: &str = "all";

/// A start with the dashboard's seal, which is valid for one visitor, for what is done, and for the jobs of one filter.
pub struct Sealed {
    pub start: Start,
    text: String,
    pub seal: String,
}

impl Sealed {
    /// Seals a start. `what` says what is done to which jobs.
    ///
    /// # Errors
    /// A refusal if the start cannot be written.
    pub fn new(visit: &Visit, what: &str, start: Start) -> Result<Sealed, Refusal> {
        let text = serde_json::to_string(&start).map_err(|error| Refusal::unavailable(error.to_string()))?;
        let seal = visit.sign(&format!("{what} {text}"));
        Ok(Sealed { start, text, seal })
    }

    /// Reads the start that an address or a form carries; `None` if it carries none.
    ///
    /// # Errors
    /// A refusal if the seal is not of this dashboard, for this visitor and for `what`, or is too old.
    pub fn read(visit: &Visit, what: &str, value: impl Fn(&str) -> Option<String>) -> Result<Option<Sealed>, Refusal> {
        let Some(text) = value("start") else { return Ok(None) };
        let seal = value("seal").unwrap_or_default();
        let is_own = visit.shared.forms.verify(&visit.viewer.name, &format!("{what} {text}"), &seal);
        match serde_json::from_str(&text) {
            Ok(start) if is_own => Ok(Some(Sealed { start, text, seal })),
            _ => Err(Refusal::forbidden(
                "The form or its address was altered, or is too old. Nothing was changed. Begin at the list of jobs \
                 again.",
            )),
        }
    }

    /// Returns the names and values that a form or an address carries.
    pub fn fields(&self) -> [(&'static str, &str); 2] {
        [("start", &self.text), ("seal", &self.seal)]
    }

    /// Returns what a visitor types to purge the jobs: the number that the page shows. If the jobs were not counted to
    /// the end, no number would be true, so it is a word.
    fn word(&self) -> String {
        self.start.matching.map_or_else(|| ALL.to_owned(), number::count)
    }

    /// Draws the field in which a visitor confirms a purge.
    pub fn confirmation(&self, is_wrong: bool) -> Markup {
        html! {
            label {
                span {
                    "Type " strong { (self.word()) } " to purge them"
                    @if self.start.matching.is_none() { ", however many they are" }
                }
                input name="typed" autocomplete="off" required inputmode=[self.start.matching.map(|_| "numeric")]
                    aria-invalid=[is_wrong.then_some("true")] aria-describedby=[is_wrong.then_some("wrong")];
            }
        }
    }

    /// Checks what a visitor has typed to purge the jobs.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, typed: Option<&str>) -> Result<(), String> {
        let typed = typed.unwrap_or_default().trim();
        match self.start.matching {
            Some(jobs) if typed.replace([',', ' '], "").parse() == Ok(jobs) => Ok(()),
            Some(jobs) => Err(format!("The number is {}.", number::count(jobs))),
            None if typed.eq_ignore_ascii_case(ALL) => Ok(()),
            None => Err(format!("There are too many jobs to count them. Type {ALL} to purge all of them.")),
        }
    }
}

/// Fixes the start of a change now. `what` names all that this depends on.
///
/// # Errors
/// What is wrong with the database.
pub async fn start(visit: &Visit, what: &str, (action, filter): (BulkAction, Filter)) -> Result<Start, String> {
    let start =
        visit.read(format!("start of {what}"), move |admin| async move { admin.bulk(action, &filter)?.start().await });
    start.await.value().cloned().map_err(str::to_owned)
}

/// Counts the jobs of a change for about this time. Without a start, fixes it now. The start that is returned has the
/// number if it is exact. `what` names all that this depends on.
///
/// # Errors
/// What is wrong with the database.
pub async fn count(
    visit: &Visit,
    what: &str,
    (action, filter): (BulkAction, Filter),
    start: Option<Start>,
    time: Duration,
) -> Result<(JobCount, Start), String> {
    // A reading that is given up has counted nothing.
    let time = time.min(visit.shared.statement_timeout / 2);
    let name = format!("count {what} {start:?} {time:?}");
    let counted = visit.read(name, move |admin| async move {
        let bulk = admin.bulk(action, &filter)?;
        let mut bulk = match start {
            Some(start) => bulk.starting_at(start),
            None => bulk,
        };
        let count = bulk.count_up_to(u64::MAX, time).await?;
        Ok((count, bulk.start().await?))
    });
    counted.await.value().cloned().map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_purge_is_confirmed_by_what_the_page_shows() {
        let sealed = |matching| {
            let start = Start::new(9, SystemTime::UNIX_EPOCH);
            let start = if let Some(jobs) = matching { start.matching(jobs) } else { start };
            Sealed { start, text: String::new(), seal: String::new() }
        };
        let (exact, many) = (sealed(Some(1000)), sealed(None));
        assert_eq!([exact.word(), many.word()], ["1,000", "all"]);
        for typed in ["1,000", " 1000 ", "1 000"] {
            assert_eq!(exact.check(Some(typed)), Ok(()), "{typed}");
        }
        for typed in [None, Some(""), Some("999"), Some("-1"), Some("all"), Some("1000 or more")] {
            assert_eq!(exact.check(typed), Err("The number is 1,000.".to_owned()), "{typed:?}");
        }
        assert_eq!(many.check(Some(" All ")), Ok(()));
        for typed in [None, Some(""), Some("51,000"), Some("18446744073709551615")] {
            assert!(many.check(typed).is_err(), "{typed:?}");
        }
    }
}
