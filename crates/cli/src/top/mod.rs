//! `reveille top`: queues, jobs, workers, schedules and limits, live.

mod action;
mod columns;
mod detail;
mod draw;
mod keys;
mod layout;
mod list;
mod model;
mod page;
mod row;
mod watch;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event::{self, Event};
use ratatui::widgets::Paragraph;
use tokio::sync::mpsc;

use crate::connection::{Connection, duration};
use crate::{Outcome, output};
use draw::Look;
use model::{Model, Reaction, Update};
use page::{Page, Want};
use watch::Session;

/// Shows the views, which it reads once a second on one connection. The role reveille_monitor suffices to watch;
/// actions and opened jobs need reveille_admin. NO_COLOR is honoured.
#[derive(Args)]
pub struct Top {
    /// The time between two reads of the views.
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "DURATION")]
    interval: Duration,
    /// The table to begin with.
    #[arg(long, value_enum, default_value_t = Page::Queues)]
    table: Page,
    /// Print one frame as text, with all rows, and end. COLUMNS sets the width.
    #[arg(long)]
    once: bool,
}

/// The shortest interval between two reads. A shorter interval would only cost the server time.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// The width of a frame that no terminal shows, unless COLUMNS is set.
const WIDTH: usize = 100;

impl Top {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let database = connection.lookout().await?;
        let look = Look { colours: std::env::var_os("NO_COLOR").is_none_or(|no_color| no_color.is_empty()) };
        let mut model = Model::new(self.table);
        let mut session = Session::new(connection.clone(), database);
        if self.once {
            for update in [Some(session.overview().await), session.fetch(&model.want()).await].into_iter().flatten() {
                model.update(update);
            }
            return once(model, look);
        }
        if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
            return Err("top needs a terminal; use `reveille top --once` for text".to_owned().into());
        }
        let (act, actions) = mpsc::channel(16);
        let (send, updates) = mpsc::channel(16);
        let (want, wants) = tokio::sync::watch::channel(model.want());
        let every = self.interval.max(SHORTEST_INTERVAL);
        tokio::spawn(watch::run(session, every, actions, wants, send));
        let stop = stop_signal()?;
        let mut terminal = ratatui::try_init()?;
        let channels = Channels { updates, act, want };
        let shown = live(&mut terminal, &mut model, look, channels, stop).await;
        ratatui::restore();
        shown
    }
}

/// The ends of the channels to the task that reads the database.
struct Channels {
    updates: mpsc::Receiver<Update>,
    act: mpsc::Sender<action::DatabaseAction>,
    want: tokio::sync::watch::Sender<Want>,
}

/// Draws a frame after each key and each update, until the user quits or `stop` is ready.
async fn live(
    terminal: &mut ratatui::DefaultTerminal,
    model: &mut Model,
    look: Look,
    mut channels: Channels,
    stop: impl Future<Output = ()>,
) -> Outcome {
    let mut events = events();
    tokio::pin!(stop);
    loop {
        let size = terminal.size()?;
        model.size = (size.width.into(), size.height.into());
        terminal.draw(|frame| frame.render_widget(Paragraph::new(draw::lines(model, look)), frame.area()))?;
        tokio::select! {
            () = &mut stop => return Ok(()),
            event = events.recv() => match event {
                Some(Ok(Event::Key(key))) => match model.press(key) {
                    Reaction::Nothing => {}
                    Reaction::Quit => return Ok(()),
                    Reaction::Act(action) => {
                        model.message = Some(format!("{action} …"));
                        if channels.act.try_send(action).is_err() {
                            model.message = Some("still busy with earlier actions: try again".into());
                        }
                    }
                },
                // Another event, such as a change of the terminal's size, needs a new frame too.
                Some(Ok(_)) => {}
                // The terminal is gone.
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            update = channels.updates.recv() => match update {
                Some(update) => model.update(update),
                None => return Err("top no longer reads the database: start it again".to_owned().into()),
            },
        }
        let wanted = model.want();
        channels.want.send_if_modified(|want| {
            let is_new = *want != wanted;
            *want = wanted;
            is_new
        });
    }
}

/// Receives pressed keys and changes of size. A separate thread reads them, and ends with the process.
fn events() -> mpsc::Receiver<std::io::Result<Event>> {
    let (send, receive) = mpsc::channel(64);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if send.blocking_send(event).is_err() || failed {
                return;
            }
        }
    });
    receive
}

/// Waits for a signal that asks the process to end, so that `top` can restore the terminal first. Catches signals from
/// this call on.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate()];
    let [hangup, interrupt, terminate] = kinds.map(signal);
    let (mut hangup, mut interrupt, mut terminate) = (hangup?, interrupt?, terminate?);
    Ok(async move {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Prints one frame as text, with enough lines for all rows.
fn once(mut model: Model, look: Look) -> Outcome {
    if let Some(why) = model.lost.take().or_else(|| model.list().refused.clone()) {
        return Err(why.into());
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = columns.unwrap_or(WIDTH).clamp(40, 1000);
    // Enough lines for the sums, too.
    model.size = (width, draw::LINES_FOR_SUMS + model.list().len());
    let mut lines = draw::lines(&model, look);
    // The foot names keys, which a text has no use for.
    lines.pop();
    let text: Vec<String> = lines.iter().map(|line| line.to_string().trim_end().to_owned()).collect();
    Ok(output::lines(text.join("\n").trim_end())?)
}
