//! Draws a model onto a frame of any size.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, TableState, Tabs};

use super::model::{Model, Overview, Pane};
use super::table::{Column, TableRow, columns, rows, seconds_as_text};
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

/// The number of lines of a frame that are not rows of its table.
pub const BESIDE_ROWS: u16 = 5;

pub fn draw(frame: &mut Frame, model: &Model, look: Look) {
    let [head, sums, tabs, table, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, model, look);
    draw_sums(frame, sums, model, look);
    let titles = Pane::ALL.map(|pane| format!("{} {}", pane as usize + 1, pane.title()));
    let marked = look.title().add_modifier(Modifier::REVERSED);
    frame.render_widget(Tabs::new(titles).select(model.pane as usize).highlight_style(marked).divider(" "), tabs);
    match &model.overview {
        Some(overview) => draw_table(frame, table, model, overview, look),
        None => frame.render_widget(Paragraph::new("reading the database …"), table),
    }
    draw_foot(frame, foot, model, look);
    if model.helping {
        draw_help(frame, look);
    }
}

fn draw_head(frame: &mut Frame, area: Rect, model: &Model, look: Look) {
    frame.render_widget(Paragraph::new(Span::styled("reveille top", look.title())), area);
    let known = model.overview.as_ref().map_or(String::new(), |overview| {
        let at = overview.at.get(11..19).unwrap_or("");
        let (shown, all) = (overview.queues.len() as u64, overview.sums.queues);
        if shown < all { format!("the {shown} busiest of {all} queues  {at}") } else { at.to_owned() }
    });
    let right = match &model.lost {
        Some(why) => {
            let since = seconds_as_text(model.updated_at.elapsed().as_secs_f64());
            Line::styled(format!("LOST for {since}: {}", plain(why)), look.bad())
        }
        None => Line::from(known),
    };
    let [_, rest] = Layout::horizontal([Constraint::Length(14), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(right).alignment(Alignment::Right), rest);
}

fn draw_sums(frame: &mut Frame, area: Rect, model: &Model, look: Look) {
    let Some(overview) = &model.overview else { return };
    let sums = &overview.sums;
    let slots: u64 = overview.workers.iter().filter(|worker| worker.alive).map(|worker| worker.slots).sum();
    let mut spans = vec![Span::raw(format!(
        "{} ready  {} delayed  {} of {} slots run  {} done/m  {} failed/m  ",
        about(sums.ready, sums.estimated),
        about(sums.delayed, sums.estimated),
        count(sums.running),
        count(slots),
        count(sums.completed_last_minute),
        count(sums.failed_last_minute)
    ))];
    let dead = format!("{} dead", count(sums.dead));
    spans.push(if sums.dead > 0 { Span::styled(dead, look.bad()) } else { Span::raw(dead) });
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

fn draw_table(frame: &mut Frame, area: Rect, model: &Model, overview: &Overview, look: Look) {
    let shown: Vec<(usize, &Column)> =
        columns(model.pane).iter().enumerate().filter(|(_, column)| column.from <= area.width).collect();
    let all = rows(overview, model.pane);
    let none = all.is_empty();
    let rows = all.into_iter().map(|TableRow { cells, is_warning }| {
        let row = Row::new(shown.iter().map(|(place, column)| column.cell(&cells[*place])));
        if is_warning { row.style(look.style(Color::Yellow)) } else { row }
    });
    let head = Row::new(shown.iter().map(|(_, column)| column.cell(column.title))).style(look.title());
    let widths = shown.iter().map(|(_, column)| column.constraint());
    let table = Table::new(rows, widths)
        .header(head)
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .highlight_symbol("");
    let mut state = TableState::default().with_selected(model.marked());
    frame.render_stateful_widget(table, area, &mut state);
    if none && area.height > 1 {
        let below = Rect { y: area.y + 1, height: area.height - 1, ..area };
        frame.render_widget(Paragraph::new("none"), below);
    }
}

fn draw_foot(frame: &mut Frame, area: Rect, model: &Model, look: Look) {
    let line = match (&model.asking, &model.message) {
        (Some(action), _) => {
            Line::styled(format!("{}? y: yes, any other key: no", plain(&action.to_string())), look.bad())
        }
        (None, Some(message)) => Line::styled(plain(message), look.title()),
        (None, None) => Line::from(match model.pane {
            Pane::Queues => "p pause or resume  Tab next table  ? help  q quit",
            Pane::Workers => "Tab next table  ? help  q quit",
            Pane::Running => "c cancel  Tab next table  ? help  q quit",
            Pane::Failing => "r retry now  c cancel  Tab next table  ? help  q quit",
            Pane::Dead => "r revive the last  R revive all of the row  Tab next table  ? help  q quit",
        }),
    };
    frame.render_widget(Paragraph::new(line), area);
}

const HELP: &str = "\
Tab, 1 to 5   another table       q, Esc   quit
j k, arrows   mark a row          ?        this help
g G           first, last

p   queues    pause it, or resume it
c   running   cancel it: its handler is asked to stop
c   failing   cancel it
r   failing   retry it now
r   dead      revive the last of the row
R   dead      revive all of the row
Each asks before it is done.

done/m, fail/m   in the last 60 to 70 s
wait, took, max  of the last five minutes
~                an estimate";

fn draw_help(frame: &mut Frame, look: Look) {
    let area = frame.area().centered(Constraint::Length(60), Constraint::Length(19));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(Span::styled("help", look.title()))), area);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;

    use super::super::model::{DatabaseAction, DeadRow, FailingRow, QueueRow, RunningRow, Sums, WorkerRow};
    use super::*;

    fn model(pane: Pane) -> Model {
        let mut model = Model::new(pane);
        model.update(Ok(Overview {
            at: "2026-11-24T06:07:08+00:00".into(),
            sums: Sums { ready: 12_345, dead: 3, estimated: true, ..Sums::default() },
            queues: vec![
                QueueRow { queue: "mail".into(), ready: 12_345, estimated: true, ..QueueRow::default() },
                QueueRow {
                    queue: "evil \x1b[2J\n".into(),
                    paused: true,
                    mean_wait_seconds: Some(0.0123),
                    ..QueueRow::default()
                },
            ],
            workers: vec![WorkerRow { host: "web-1".into(), pid: 42, slots: 16, alive: true, ..WorkerRow::default() }],
            running: vec![RunningRow { id: 7, kind: "report".into(), running_seconds: 75.0, ..RunningRow::default() }],
            failing: vec![FailingRow {
                id: 8,
                failures: 2,
                max_attempts: 20,
                last_error: Some("no luck".into()),
                ..FailingRow::default()
            }],
            dead: vec![DeadRow { reason: "lost".into(), jobs: 3, ..DeadRow::default() }],
        }));
        model
    }

    fn buffer(model: &Model, width: u16, height: u16, colours: bool) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, Look { colours })).unwrap();
        terminal.backend().buffer().clone()
    }

    fn text(model: &Model, width: u16, height: u16) -> String {
        super::super::text(&buffer(model, width, height, true))
    }

    #[test]
    fn queues_fit_a_small_terminal() {
        let shown = text(&model(Pane::Queues), 80, 24);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("reveille top") && lines[0].ends_with("06:07:08"), "{shown}");
        assert!(lines[1].starts_with("~12.3k ready") && lines[1].ends_with("3 dead"), "{shown}");
        assert_eq!(
            lines[3].split_whitespace().collect::<Vec<_>>(),
            ["queue", "ready", "delay", "run", "dead", "oldest", "done/m", "fail/m", "wait", "took"]
        );
        assert!(lines[4].starts_with("mail ") && lines[4].contains("~12.3k"), "{shown}");
        assert!(lines[5].contains("paused") && lines[5].contains("12ms"), "{shown}");
        assert_eq!(lines[23], "p pause or resume  Tab next table  ? help  q quit");
        assert!(text(&model(Pane::Queues), 120, 24).lines().nth(3).unwrap().ends_with("  wait    max   took    max"));
    }

    #[test]
    fn each_table_shows_its_rows() {
        for (pane, parts) in [
            (Pane::Workers, &["web-1", "42", "working"][..]),
            (Pane::Running, &["report", "1m15s", "(gone)"]),
            (Pane::Failing, &["2/20", "due", "no luck"]),
            (Pane::Dead, &["lost", "3"]),
        ] {
            let shown = text(&model(pane), 80, 24);
            assert!(parts.iter().all(|part| shown.lines().nth(4).unwrap().contains(part)), "{shown}");
        }
    }

    #[test]
    fn any_size_is_drawn_and_no_escape_sequence_reaches_the_terminal() {
        for (width, height) in [(1, 1), (20, 3), (80, 24), (200, 60), (500, 5)] {
            for pane in Pane::ALL {
                let mut model = model(pane);
                model.helping = width % 3 == 0;
                let shown = text(&model, width, height);
                assert!(!shown.contains('\x1b'), "{shown}");
            }
        }
    }

    #[test]
    fn a_lost_connection_is_shown_beside_the_last_rows() {
        let mut model = model(Pane::Queues);
        model.update(Err("is the server running?".into()));
        let shown = text(&model, 80, 24);
        assert!(shown.lines().next().unwrap().contains("LOST for") && shown.contains("mail"), "{shown}");
    }

    #[test]
    fn a_question_and_help_are_shown() {
        let mut model = model(Pane::Running);
        model.asking = Some(DatabaseAction::Cancel(7));
        assert!(text(&model, 80, 24).ends_with("cancel job 7? y: yes, any other key: no\n"));
        model.helping = true;
        assert!(text(&model, 80, 24).contains("Each asks before it is done."));
    }

    #[test]
    fn without_colours_there_are_none() {
        let coloured = |colours| {
            let buffer = buffer(&model(Pane::Queues), 80, 24, colours);
            buffer.content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert_eq!((coloured(true), coloured(false)), (true, false));
    }
}
