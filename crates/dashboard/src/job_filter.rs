//! The filter of a list of jobs, as it stands in the address of the page.

use std::time::Duration;

use reveille::admin::{Filter, PagePlace, REASONS, Sort, StateFilter};
use reveille::job::Payload;

use crate::access::Right;
use crate::draw::text;
use crate::visit::Visit;

/// The names of the filter's fields in an address, in the order of the form.
pub const FIELDS: [&str; 11] =
    ["state", "queue", "kind", "key", "tag", "newer", "older", "reason", "error", "payload", "sort"];

/// What a list of jobs shows.
pub struct JobFilter {
    /// The fields that are filled in, by their names, as the visitor wrote them.
    pub fields: Vec<(&'static str, String)>,
    pub filter: Filter,
    pub sort: Sort,
    pub from: Option<PagePlace>,
}

impl JobFilter {
    /// Reads the filter from the address of the page.
    ///
    /// # Errors
    /// What is wrong with a field, for the visitor.
    pub fn of_visit(visit: &Visit) -> Result<JobFilter, String> {
        let from = visit.param("from").map(|from| from.parse()).transpose().map_err(|error| format!("{error}"))?;
        let field = |name: &'static str| Some((name, visit.param(name)?));
        let filter = JobFilter::read(visit, FIELDS.into_iter().filter_map(field).collect())?;
        Ok(JobFilter { from, ..filter })
    }

    /// Reads the filter from its fields.
    ///
    /// # Errors
    /// What is wrong with a field, for the visitor.
    pub fn read(visit: &Visit, fields: Vec<(&'static str, String)>) -> Result<JobFilter, String> {
        let mut read = JobFilter { fields, filter: Filter::new(), sort: Sort::Id, from: None };
        for (name, value) in &read.fields {
            let filter = read.filter;
            read.filter = match *name {
                "state" => filter.state(value.parse::<StateFilter>().map_err(|error| error.to_string())?),
                "queue" => filter.queue(value),
                "kind" => filter.kind(value),
                "key" => filter.key(value),
                "tag" => value.split_whitespace().fold(filter, Filter::tag),
                "newer" => filter.newer_than(age(value)?),
                "older" => filter.older_than(age(value)?),
                "reason" => {
                    let reason = REASONS.into_iter().find(|reason| reason.name() == value);
                    filter.reason(reason.ok_or_else(|| format!("No job is dead for the reason {value:?}."))?)
                }
                "error" if !may_match_error(visit) => {
                    return Err("Errors may be shown in part only, so you may not filter by them.".to_owned());
                }
                "error" => filter.error(value),
                "payload" if !may_match_payload(visit) => {
                    return Err("You may not see all of the payloads, so you may not filter by them.".to_owned());
                }
                "payload" => filter.payload(Payload::parse(value).map_err(|error| error.to_string())?),
                "sort" => {
                    read.sort = value.parse().map_err(|error: reveille::Error| error.to_string())?;
                    filter
                }
                _ => filter,
            };
        }
        read.within_the_viewers_queues(visit)
    }

    /// A visitor who sees only some queues lists the jobs of one of these at a time.
    fn within_the_viewers_queues(mut self, visit: &Visit) -> Result<JobFilter, String> {
        let Some(queues) = &visit.viewer.queues else { return Ok(self) };
        match (self.field("queue").map(str::to_owned), queues.first()) {
            (Some(queue), _) if visit.viewer.sees(&queue) => {}
            (None, Some(first)) => {
                self.fields.push(("queue", first.clone()));
                self.filter = self.filter.queue(first);
            }
            _ => return Err("You may not see the jobs of this queue.".to_owned()),
        }
        Ok(self)
    }

    /// Returns the value of a field, as the visitor wrote it.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str())
    }

    /// Returns the address of the list with this filter, with some fields changed: an empty value removes a field.
    pub fn address(&self, changed: &[(&str, &str)]) -> String {
        address("jobs", &self.fields, changed)
    }

    /// Returns the address of another page with this filter.
    pub fn address_of(&self, page: &str, changed: &[(&str, &str)]) -> String {
        address(page, &self.fields, changed)
    }
}

/// True if the visitor may filter by texts of errors. A filter tells whether a text is there: with an application's
/// redaction, a visitor could find out letter by letter what is hidden.
pub fn may_match_error(visit: &Visit) -> bool {
    visit.shared.redact.is_none()
}

/// True if the visitor may filter by payloads, for which the same holds.
pub fn may_match_payload(visit: &Visit) -> bool {
    visit.may(Right::SeePayloads) && visit.shared.redact.is_none()
}

/// Returns the address of a page of jobs with these fields.
pub fn address(page: &str, fields: &[(&'static str, String)], changed: &[(&str, &str)]) -> String {
    let kept = fields.iter().filter(|(name, _)| !changed.iter().any(|(other, _)| other == name));
    let all = kept.map(|(name, value)| (*name, value.as_str())).chain(changed.iter().copied());
    let query: Vec<String> = all
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", text::in_query(value)))
        .collect();
    format!("{page}{}{}", if query.is_empty() { "" } else { "?" }, query.join("&"))
}

/// Reads an age, such as `30m` or `2h`.
fn age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("{text:?} is no age. Write it like 90s, 30m, 2h or 7days."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_the_filter() {
        let fields = vec![("state", "dead".to_owned()), ("queue", "a/b c&d".to_owned())];
        assert_eq!(address("jobs", &fields, &[]), "jobs?state=dead&queue=a%2Fb+c%26d");
        assert_eq!(address("jobs", &fields, &[("state", ""), ("sort", "due")]), "jobs?queue=a%2Fb+c%26d&sort=due");
        assert_eq!(address("jobs", &[], &[]), "jobs");
        assert_eq!(age("2h"), Ok(Duration::from_secs(7200)));
        assert!(age("soon").is_err_and(|error| error.contains("30m")));
    }
}
