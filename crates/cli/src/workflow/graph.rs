//! Drawing the jobs of a workflow as text.

use std::env;

use reveille::admin::{Prerequisite, WorkflowJobRow, WorkflowJobState, WorkflowRow};
use reveille::job::FiresOn;
use unicode_width::UnicodeWidthStr;

/// The number of jobs from which the layers are computed. In a larger workflow, these are the first ones by name.
pub const MOST_READ: u32 = 1000;
/// The number of prerequisites that a line names.
const MOST_NAMED: usize = 8;
/// The number of prerequisites that a row has at most.
const MOST_PREREQUISITES: usize = 100;

/// The characters for the states of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    Unicode,
    Ascii,
}

impl Marks {
    /// Returns the marks that the locale can show. The first variable that is set decides, as for every program.
    pub fn of_environment() -> Marks {
        let variables = [env::var("LC_ALL"), env::var("LC_CTYPE"), env::var("LANG")];
        let locale = variables.into_iter().flatten().find(|value| !value.is_empty());
        Marks::of_locale(locale.as_deref())
    }

    /// Without a locale, as in most containers, the terminal is somewhere else, and nearly all terminals know UTF-8.
    fn of_locale(locale: Option<&str>) -> Marks {
        let is_utf8 = |locale: &str| locale.to_ascii_lowercase().replace('-', "").contains("utf8");
        if locale.is_none_or(is_utf8) { Marks::Unicode } else { Marks::Ascii }
    }

    fn of(self, state: WorkflowJobState) -> char {
        let (unicode, ascii) = match state {
            WorkflowJobState::Completed => ('✓', '+'),
            WorkflowJobState::Running => ('▶', '>'),
            WorkflowJobState::Ready | WorkflowJobState::Delayed => ('○', 'o'),
            WorkflowJobState::Blocked => ('·', '.'),
            WorkflowJobState::Dead => ('✗', 'x'),
            WorkflowJobState::Cancelled => ('–', '-'),
            WorkflowJobState::Skipped => ('↷', '~'),
            WorkflowJobState::Ended => ('…', '='),
            _ => ('?', '?'),
        };
        if self == Marks::Unicode { unicode } else { ascii }
    }
}

/// Returns the first jobs in layers: a job comes after all jobs that it waits for.
pub fn layered(jobs: &[WorkflowJobRow], most: usize) -> Vec<&WorkflowJobRow> {
    let mut ordered: Vec<(usize, &WorkflowJobRow)> = WorkflowJobRow::layers(jobs).into_iter().zip(jobs).collect();
    ordered.sort_by_key(|(layer, job)| (*layer, job.job));
    ordered.into_iter().map(|(_, job)| job).take(most).collect()
}

/// Returns a line about the workflow as a whole.
pub fn summary(workflow: &WorkflowRow) -> String {
    let WorkflowRow { id, name, state, jobs, .. } = workflow;
    let counts = [
        (workflow.live, "live"),
        (workflow.blocked, "blocked"),
        (workflow.completed, "completed"),
        (workflow.dead, "dead"),
        (workflow.cancelled, "cancelled"),
        (workflow.skipped, "skipped"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, what)| format!("{} {what}", grouped(count))).collect();
    let (plural, counts) = (if *jobs == 1 { "" } else { "s" }, counts.join(", "));
    let open = if workflow.sealed { "" } else { "; not sealed yet" };
    format!("workflow {id} {name}: {}, {} job{plural}: {counts}{open}", state.name(), grouped(*jobs))
}

/// Returns a line for each job: the mark of its state, its name, and what it waits for.
pub fn lines(jobs: &[&WorkflowJobRow], marks: Marks) -> Vec<String> {
    let width = jobs.iter().filter(|job| !job.prerequisites.is_empty()).map(|job| job.name.width()).max().unwrap_or(0);
    let line = |job: &&WorkflowJobRow| {
        let mark = marks.of(job.state);
        if job.prerequisites.is_empty() {
            return format!("{mark} {}", job.name);
        }
        let blanks = " ".repeat(width - job.name.width());
        format!("{mark} {}{blanks}  {}", job.name, after(&job.prerequisites))
    };
    jobs.iter().map(line).collect()
}

/// Returns what a job waits for, such as `after extract; after load (any end)`.
fn after(prerequisites: &[Prerequisite]) -> String {
    let mut left = MOST_NAMED;
    let mut parts = Vec::new();
    for fires_on in FiresOn::ALL {
        let names = prerequisites.iter().filter(|other| other.fires_on == fires_on).map(|other| other.name.as_str());
        let names: Vec<&str> = names.take(left).collect();
        left -= names.len();
        let how = match fires_on {
            FiresOn::Completed => "",
            FiresOn::Dead => " (dead)",
            FiresOn::Cancelled => " (cancelled)",
            FiresOn::Any => " (any end)",
        };
        if !names.is_empty() {
            parts.push(format!("after {}{how}", names.join(", ")));
        }
    }
    let others = prerequisites.len().saturating_sub(MOST_NAMED);
    let or_more = if prerequisites.len() >= MOST_PREREQUISITES { " or more" } else { "" };
    let others = if others > 0 { format!(", and {others}{or_more} others") } else { String::new() };
    format!("{}{others}", parts.join("; "))
}

/// Writes a number with commas between the thousands: `9,800`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_without_utf_8_gets_marks_in_ascii() {
        let marks = |locale| Marks::of_locale(Some(locale));
        assert_eq!(["en_US.UTF-8", "C.utf8"].map(marks), [Marks::Unicode; 2]);
        assert_eq!(["C", "POSIX", "de_DE.ISO-8859-1"].map(marks), [Marks::Ascii; 3]);
        assert_eq!(Marks::of_locale(None), Marks::Unicode);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 9800, 1_234_567].map(grouped), ["0", "999", "9,800", "1,234,567"]);
    }
}
