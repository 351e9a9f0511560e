//! Draws a model as lines of text. This is a pure function, so it is tested without a terminal.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::columns::{Column, columns};
use super::detail;
use super::layout::{Wish, choose, cut, fit, join, wrap};
use super::list::List;
use super::model::{Detail, Model, Shown, Sums};
use super::page::{Page, Place, Subject};
use super::row::seconds_as_text;
use crate::figures::{about, count};
use crate::output::plain;

/// The choice whether frames have colours. No meaning depends on colour alone.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub colours: bool,
}

impl Look {
    fn style(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn title(self) -> Style {
        self.style(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    fn bad(self) -> Style {
        self.style(Color::Red).add_modifier(Modifier::BOLD)
    }
}

/// A terminal with fewer lines than this does not show the sums.
pub const LINES_FOR_SUMS: usize = 10;

/// Returns the number of lines of a screen of this height that are not the list or text.
pub fn lines_beside_body(height: usize) -> usize {
    if height < LINES_FOR_SUMS { 4 } else { 5 }
}

/// Returns the lines of the screen, of which none is wider than the screen.
pub fn lines(model: &Model, look: Look) -> Vec<Line<'static>> {
    let (width, height) = model.size;
    let mut lines = vec![head(model, width, look)];
    if height >= LINES_FOR_SUMS {
        lines.push(sums(model, width, look));
    }
    lines.push(tabs(model, width, look));
    lines.push(about_body(model, width, look));
    let body = height.saturating_sub(lines.len() + 1);
    lines.extend(match (model.help, model.shown()) {
        (Some(scroll), _) => help(scroll, width, body),
        (None, Shown::Detail(detail)) => text(model.list(), detail, width, body, look),
        (None, Shown::List(list)) => table(list, width, body, look),
    });
    lines.truncate(height.saturating_sub(1));
    lines.resize(height.saturating_sub(1), Line::default());
    lines.push(foot(model, width, look));
    lines
}

fn head(model: &Model, width: usize, look: Look) -> Line<'static> {
    const NAME: &str = "reveille top";
    let time = model.head.as_ref().map_or("", |head| head.at.get(11..19).unwrap_or_default());
    let (right, style) = match &model.lost {
        Some(why) => {
            let since = seconds_as_text(model.updated_at.elapsed().as_secs_f64());
            (format!("LOST for {since}: {}", plain(why)), look.bad())
        }
        None => (time.to_owned(), Style::new()),
    };
    // In a narrow terminal, the reason of the loss matters more than the name.
    if width < 30 && model.lost.is_some() {
        return Line::styled(cut(&right, width), style);
    }
    let name = cut(NAME, width);
    let room = width.saturating_sub(name.width() + 1);
    let right = if model.lost.is_none() && right.width() > room { String::new() } else { right };
    Line::from(vec![
        Span::styled(name.clone(), look.title()),
        Span::raw(" ".repeat((width - name.width()).min(1))),
        Span::styled(fit(&right, room, true), style),
    ])
}

fn sums(model: &Model, width: usize, look: Look) -> Line<'static> {
    let Some(head) = &model.head else { return Line::default() };
    let Sums { ready, delayed, running, dead, estimated, .. } = head.sums;
    let parts = [
        (0, format!("{} ready", about(ready, estimated))),
        (3, format!("{} delayed", about(delayed, estimated))),
        (2, format!("{} of {} slots run", count(running), count(head.sums.slots))),
        (5, format!("{} done/m", count(head.sums.completed_last_minute))),
        (4, format!("{} failed/m", count(head.sums.failed_last_minute))),
        (1, format!("{} dead", count(dead))),
    ];
    let line = join(&parts, width);
    match line.strip_suffix(&parts[5].1) {
        Some(others) if dead > 0 => {
            Line::from(vec![Span::raw(others.to_owned()), Span::styled(parts[5].1.clone(), look.bad())])
        }
        _ => Line::raw(line),
    }
}

/// Returns the line that names the pages. If it is too long for the terminal, it names only the current page.
fn tabs(model: &Model, width: usize, look: Look) -> Line<'static> {
    let title = |page: Page, is_short: bool| {
        let digit = page as usize + 1;
        if is_short && page != model.page { digit.to_string() } else { format!("{digit} {}", page.title()) }
    };
    let length = |is_short| Page::ALL.map(|page| title(page, is_short).width() + 1).iter().sum::<usize>() - 1;
    let marked = look.title().add_modifier(Modifier::REVERSED);
    let is_short = length(false) > width;
    if is_short && length(true) > width {
        return Line::styled(cut(&title(model.page, false), width), marked);
    }
    let tab = |page| {
        let style = if page == model.page { marked } else { Style::new() };
        [Span::styled(title(page, is_short), style), Span::raw(" ")]
    };
    let mut spans: Vec<Span> = Page::ALL.into_iter().flat_map(tab).collect();
    spans.pop();
    Line::from(spans)
}

/// Returns the line about the list or text: what it is, how much of it is read, how it is sorted and filtered.
fn about_body(model: &Model, width: usize, look: Look) -> Line<'static> {
    if model.help.is_some() {
        return Line::styled(cut("help", width), look.title());
    }
    let list = match model.shown() {
        Shown::Detail(detail) => {
            let name = match &detail.subject {
                Subject::Job(id) => format!("job {id}"),
                Subject::Worker(id) => format!("worker {id}"),
                Subject::Schedule { name, .. } => format!("schedule {}", plain(name)),
                _ => String::new(),
            };
            return Line::styled(cut(&name, width), look.title());
        }
        Shown::List(list) => list,
    };
    if let Some(why) = &list.refused {
        return Line::styled(cut(&plain(why), width), look.bad());
    }
    let name = match &list.place {
        Place::Page(_) => String::new(),
        Place::Queue(queue) => format!("waiting in {}", plain(queue)),
        Place::Worker(worker) => format!("running on worker {worker}"),
        Place::Group { queue, kind, reason } => format!("{} in {}: {}", plain(kind), plain(queue), plain(reason)),
    };
    let (column, descends) = list.sorted();
    let arrow = if descends { "↓" } else { "↑" };
    let sort = match column.map(|index| columns(&list.place)[index].title) {
        Some(title) => format!("by {} {arrow}", if title.is_empty() { "state" } else { title }),
        None if descends => "reversed".to_owned(),
        None => String::new(),
    };
    let filter = if list.filter().is_empty() { String::new() } else { format!("/{}", plain(list.filter())) };
    Line::raw(join(&[(1, name), (0, read(model, list)), (2, filter), (3, sort)], width))
}

/// Returns how many rows are shown, and of how many.
fn read(model: &Model, list: &List) -> String {
    if !list.is_answered() {
        return "reading the database …".to_owned();
    }
    let read = list.read();
    let is_part = read >= list.place.rows_if_more();
    let rows = match total(model, list) {
        Some((all, is_estimate)) if is_part && all > read as u64 => {
            format!("first {} of {}", read_by_state(list), about(all, is_estimate))
        }
        None if is_part => format!("first {read}"),
        _ if read == 1 => "1 row".to_owned(),
        _ => format!("{read} rows"),
    };
    if list.filter().is_empty() { rows } else { format!("{} match in {rows}", list.len()) }
}

/// Returns the number of rows that were read. Waiting jobs are counted by state, since the first ready and the first
/// delayed jobs are read.
fn read_by_state(list: &List) -> String {
    if !matches!(list.place, Place::Page(Page::Waiting) | Place::Queue(_)) {
        return list.read().to_string();
    }
    let ready = list.all().iter().filter(|row| row.row.is("ready")).count();
    match list.read() - ready {
        0 => format!("{ready} ready"),
        delayed if ready == 0 => format!("{delayed} delayed"),
        delayed => format!("{ready} ready, {delayed} delayed"),
    }
}

/// Returns the number of all rows of a list, and true if it is an estimate; `None` if the number is not known.
fn total(model: &Model, list: &List) -> Option<(u64, bool)> {
    let sums = &model.head.as_ref()?.sums;
    Some(match &list.place {
        Place::Page(Page::Queues) => (sums.queues, false),
        Place::Page(Page::Running) => (sums.running, false),
        Place::Page(Page::Waiting) => (sums.ready + sums.delayed, sums.estimated),
        Place::Queue(queue) => {
            let subject = Subject::Queue { name: queue.clone(), paused: false };
            let row = &model.page_list(Page::Queues).find(&subject)?.row;
            (row.count("ready") + row.count("delayed"), row.is("estimated"))
        }
        Place::Group { queue, kind, reason } => {
            let (queue, kind, reason) = (queue.clone(), kind.clone(), reason.clone());
            let subject = Subject::Group { queue, kind, reason, last: None };
            (model.page_list(Page::Dead).find(&subject)?.row.count("jobs"), false)
        }
        _ => return None,
    })
}

fn table(list: &List, width: usize, body: usize, look: Look) -> Vec<Line<'static>> {
    let columns = columns(&list.place);
    let longest = |index: usize| list.all().iter().map(|row| row.cells[index].text.width()).max().unwrap_or_default();
    let wishes: Vec<Wish> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| Wish {
            rank: column.rank,
            is_figure: column.is_figure,
            longest_cell: longest(index),
            title: column.title.width(),
        })
        .collect();
    let chosen = choose(&wishes, width);
    let line = |cell: &dyn Fn(usize) -> String| {
        let cells = chosen.iter().map(|(index, width)| fit(&cell(*index), *width, columns[*index].is_figure));
        cells.collect::<Vec<_>>().join(" ")
    };
    let title = |(index, width): &(usize, usize)| {
        let Column { title, is_figure, .. } = &columns[*index];
        let style = if list.sorted().0 == Some(*index) {
            look.title().add_modifier(Modifier::UNDERLINED)
        } else {
            look.title()
        };
        [Span::styled(fit(title, *width, *is_figure), style), Span::raw(" ")]
    };
    let mut titles: Vec<Span> = chosen.iter().flat_map(title).collect();
    titles.pop();
    let mut lines = vec![Line::from(titles)];
    if list.is_answered() && list.len() == 0 {
        lines.push(Line::raw(cut("none", width)));
    }
    let height = body.saturating_sub(1);
    let (first, mark) = (list.first_row(height), list.mark());
    for (place, row) in list.shown().enumerate().skip(first).take(height) {
        let style = if row.is_warning { look.style(Color::Yellow) } else { Style::new() };
        let is_marked = mark == Some(place);
        let style = if is_marked { style.add_modifier(Modifier::REVERSED) } else { style };
        let text = line(&|index| row.cells[index].text.clone());
        lines.push(Line::styled(if is_marked { fit(&text, width, false) } else { text }, style));
    }
    lines
}

fn text(list: &List, detail: &Detail, width: usize, body: usize, look: Look) -> Vec<Line<'static>> {
    let lines = detail::lines(list, detail, width);
    let scroll = detail.scroll.min(lines.len().saturating_sub(body));
    let style = |is_title| if is_title { look.title() } else { Style::new() };
    lines.into_iter().skip(scroll).take(body).map(|line| Line::styled(line.text, style(line.is_title))).collect()
}

fn foot(model: &Model, width: usize, look: Look) -> Line<'static> {
    if let Some(action) = &model.asking {
        // The end of the question says how to answer, so its beginning is cut if need be.
        let answer = "? y: yes, any other key: no";
        let answer = if width < 50 { "? y/n" } else { answer };
        let what = cut(&plain(&action.to_string()), width.saturating_sub(answer.len()));
        return Line::styled(cut(&format!("{what}{answer}"), width), look.bad());
    }
    if model.is_typing {
        let filter = plain(model.list().filter());
        let line = format!("/{filter}_");
        // The end of a long filter stays visible, since the user types there.
        let last = wrap(&line, width.max(1), 0).pop().unwrap_or_default();
        let hint = "  Enter: keep, Esc: clear";
        let line = if line.width() + hint.len() <= width { format!("{line}{hint}") } else { last };
        return Line::styled(cut(&line, width), look.title());
    }
    if let Some(message) = &model.message {
        return Line::styled(cut(&plain(message), width), look.title());
    }
    Line::raw(join(&hints(model), width))
}

/// Returns the keys that the foot names, with their ranks.
fn hints(model: &Model) -> Vec<(u8, String)> {
    let end = [(0, "? help".to_owned()), (3, "q quit".to_owned())];
    if model.help.is_some() {
        return vec![(0, "any key: back".to_owned()), (1, "q quit".to_owned())];
    }
    let letters = model.letters().into_iter().map(|(letter, meaning, _)| (2, format!("{letter} {meaning}")));
    let back = (1, "Esc back".to_owned());
    let keys: Vec<(u8, String)> = match model.shown() {
        Shown::Detail(Detail { subject: Subject::Worker(_), .. }) => vec![back, (1, "Enter its jobs".to_owned())],
        Shown::Detail(_) => vec![back],
        Shown::List(list) => {
            let back = match (list.filter().is_empty(), model.opened.is_empty()) {
                (false, _) => Some((1, "Esc clear filter".to_owned())),
                (true, false) => Some(back),
                (true, true) => None,
            };
            let keys = [(1, "Enter open"), (4, "/ filter"), (5, "s sort"), (6, "Tab next page")];
            back.into_iter().chain(keys.map(|(rank, key)| (rank, key.to_owned()))).collect()
        }
    };
    letters.chain(keys).chain(end).collect()
}

pub const HELP: &str = "\
1 to 8, Tab   go to a page
Enter         open the row: a job, a
              worker, a schedule, or
              the jobs of a queue, of
              a group of dead jobs, of
              a shown worker
Esc           back
j k, arrows   move
PgUp, PgDn    move by a screen
g G           first, last
s             sort by the next column
S             reverse the order
/             show rows with a text
?             this help
q             quit

p  pause or resume a queue, schedule
c  cancel a job: if it runs, its
   handler is asked to stop
r  retry a job now; revive a dead one
R  revive all jobs of a group
t  enqueue a job of a schedule now
Each asks before it is done.

done/m fail/m  in the last 60 to 70 s
wait, took     in the last 5 minutes
~              an estimate";

fn help(scroll: usize, width: usize, body: usize) -> Vec<Line<'static>> {
    let scroll = scroll.min(HELP.lines().count().saturating_sub(body));
    HELP.lines().skip(scroll).take(body).map(|line| Line::raw(cut(line, width))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
