//! The state of `top`. It depends neither on a terminal nor on a database.

use std::time::Instant;

use serde::Deserialize;

use super::action::{DatabaseAction, Letter, letters, letters_of_job};
use super::list::List;
use super::page::{Page, Place, Subject, Want};
use super::row::Row;
use super::{detail, draw};

/// The sums of all queues, and the time of the answer by the server's clock.
#[derive(Debug, Clone, Default)]
pub struct Head {
    pub at: String,
    pub sums: Sums,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Sums {
    pub queues: u64,
    pub ready: u64,
    pub delayed: u64,
    pub running: u64,
    pub dead: u64,
    pub estimated: bool,
    pub completed_last_minute: u64,
    pub failed_last_minute: u64,
    pub slots: u64,
}

/// A change that the model takes in.
#[derive(Debug)]
pub enum Update {
    Overview(Head, Vec<Row>),
    /// The answer to a want for a list. An error means that the server refused to answer.
    List(Want, Result<Vec<Row>, String>),
    /// The answer to a want for a job; `None` if there is no such job.
    Job(i64, Result<Option<Row>, String>),
    /// The reason why the database did not answer.
    Lost(String),
    /// The result of an action.
    Done(String),
}

/// The effect of a pressed key outside the model.
#[derive(Debug, PartialEq, Eq)]
pub enum Reaction {
    Nothing,
    Quit,
    Act(DatabaseAction),
}

/// Everything about one job, worker or schedule. The text is longer than a screen may be, so the user can scroll it.
#[derive(Debug)]
pub struct Detail {
    pub subject: Subject,
    /// The database's answer about a job; `None` before the first answer. Other subjects are rows of the list below.
    pub job: Option<Result<Option<Row>, String>>,
    /// The number of lines that are scrolled off the screen.
    pub scroll: usize,
}

/// A list or text that the user opened from a row.
#[derive(Debug)]
pub enum Opened {
    List(List),
    Detail(Detail),
}

/// The things that a screen can show.
pub enum Shown<'a> {
    List(&'a List),
    Detail(&'a Detail),
}

#[derive(Debug)]
pub struct Model {
    pub head: Option<Head>,
    /// The reason why the last read of the database failed; `None` if the read succeeded.
    pub lost: Option<String>,
    /// The time at which the last answer arrived.
    pub updated_at: Instant,
    pub page: Page,
    pages: [List; 8],
    /// The lists and texts that the user opened, one from another. The last is shown.
    pub opened: Vec<Opened>,
    /// The action that the user must still confirm.
    pub asking: Option<DatabaseAction>,
    /// The number of scrolled lines of the help; `None` if the help is not shown.
    pub help: Option<usize>,
    /// True while the user types the filter.
    pub is_typing: bool,
    /// The result of the last action.
    pub message: Option<String>,
    /// The columns and lines of the terminal.
    pub size: (usize, usize),
}

impl Model {
    pub fn new(page: Page) -> Model {
        Model {
            head: None,
            lost: None,
            updated_at: Instant::now(),
            page,
            pages: Page::ALL.map(|page| List::new(Place::Page(page))),
            opened: Vec::new(),
            asking: None,
            help: None,
            is_typing: false,
            message: None,
            size: (80, 24),
        }
    }

    pub fn update(&mut self, update: Update) {
        if !matches!(update, Update::Lost(_) | Update::Done(_)) {
            self.lost = None;
            self.updated_at = Instant::now();
        }
        match update {
            Update::Overview(head, queues) => {
                self.head = Some(head);
                self.pages[Page::Queues as usize].update(Ok(queues));
            }
            Update::List(want, rows) => {
                let opened = self.opened.iter_mut().filter_map(|opened| match opened {
                    Opened::List(list) => Some(list),
                    Opened::Detail(_) => None,
                });
                if let Some(list) = self.pages.iter_mut().chain(opened).find(|list| list.place.want() == want) {
                    list.update(rows);
                }
            }
            Update::Job(id, answer) => {
                if let Some(Opened::Detail(detail)) = self.opened.last_mut()
                    && detail.subject == Subject::Job(id)
                {
                    detail.job = Some(answer);
                }
            }
            Update::Lost(why) => self.lost = Some(why),
            Update::Done(message) => self.message = Some(message),
        }
    }

    /// Returns the data that the shown list or text needs.
    pub fn want(&self) -> Want {
        match self.shown() {
            Shown::Detail(Detail { subject: Subject::Job(id), .. }) => Want::Job(*id),
            _ => self.list().place.want(),
        }
    }

    pub fn shown(&self) -> Shown<'_> {
        match self.opened.last() {
            Some(Opened::List(list)) => Shown::List(list),
            Some(Opened::Detail(detail)) => Shown::Detail(detail),
            None => Shown::List(&self.pages[self.page as usize]),
        }
    }

    /// Returns the shown list, or the list below the shown text.
    pub fn list(&self) -> &List {
        let lists = self.opened.iter().rev().filter_map(|opened| match opened {
            Opened::List(list) => Some(list),
            Opened::Detail(_) => None,
        });
        lists.into_iter().next().unwrap_or(&self.pages[self.page as usize])
    }

    pub fn list_mut(&mut self) -> &mut List {
        let lists = self.opened.iter_mut().rev().filter_map(|opened| match opened {
            Opened::List(list) => Some(list),
            Opened::Detail(_) => None,
        });
        lists.into_iter().next().unwrap_or(&mut self.pages[self.page as usize])
    }

    pub fn page_list(&self, page: Page) -> &List {
        &self.pages[page as usize]
    }

    /// Goes to a page, and closes everything that the user opened.
    pub fn go_to(&mut self, page: Page) {
        self.page = page;
        self.opened.clear();
    }

    /// Opens the selected row, or the running jobs of a shown worker.
    pub fn open(&mut self) {
        let from_detail = match self.shown() {
            Shown::Detail(detail) => Some(detail.subject.clone()),
            Shown::List(_) => None,
        };
        let Some(subject) = from_detail.clone().or_else(|| Some(self.list().marked()?.subject.clone())) else { return };
        let list = |place| Opened::List(List::new(place));
        let opened = match subject {
            Subject::Queue { name, .. } | Subject::Limits(name) => list(Place::Queue(name)),
            Subject::Group { queue, kind, reason, .. } => list(Place::Group { queue, kind, reason }),
            Subject::Worker(worker) if from_detail.is_some() => list(Place::Worker(worker)),
            _ if from_detail.is_some() => return,
            subject => Opened::Detail(Detail { subject, job: None, scroll: 0 }),
        };
        self.opened.push(opened);
    }

    /// Returns the letters with a meaning for the selected row, or for the shown job or schedule.
    pub fn letters(&self) -> Vec<Letter> {
        match self.shown() {
            Shown::List(list) => list.marked().map(|row| letters(&list.place, &row.subject)).unwrap_or_default(),
            Shown::Detail(detail) => match (&detail.subject, &detail.job) {
                (Subject::Job(id), Some(Ok(Some(job)))) => letters_of_job(*id, job),
                (Subject::Job(_), _) => Vec::new(),
                (subject, _) => {
                    let list = self.list();
                    list.find(subject).map(|row| letters(&list.place, &row.subject)).unwrap_or_default()
                }
            },
        }
    }

    /// Returns the number of rows or lines that the body of the screen has.
    pub fn body_height(&self) -> usize {
        let head = if matches!(self.shown(), Shown::List(_)) && self.help.is_none() { 1 } else { 0 };
        self.size.1.saturating_sub(draw::lines_beside_body(self.size.1) + head).max(1)
    }

    /// Returns the number of scrolled lines at which the end of the text is on the screen.
    pub fn last_scroll(&self) -> usize {
        let lines = if self.help.is_some() {
            draw::HELP.lines().count()
        } else if let Shown::Detail(detail) = self.shown() {
            detail::lines(self.list(), detail, self.size.0).len()
        } else {
            0
        };
        lines.saturating_sub(self.body_height())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests;
