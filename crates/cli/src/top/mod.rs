//! `reveille top`: queues, workers and jobs, live.

mod draw;
mod model;
mod table;
mod watch;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event};
use tokio::sync::mpsc;

use crate::connection::{Connection, duration};
use crate::{Failure, Outcome, output};
use draw::Look;
use model::{Model, Pane, Reaction};
use watch::Update;

/// Shows the views, which it reads once a second on one connection. The role reveille_monitor suffices to watch;
/// actions need reveille_admin. NO_COLOR is honoured.
#[derive(Args)]
pub struct Top {
    /// The time between two reads of the views.
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "DURATION")]
    interval: Duration,
    /// The table to begin with.
    #[arg(long, value_enum, default_value_t = Pane::Queues)]
    table: Pane,
    /// Print one frame as text, with all rows, and end. COLUMNS sets the width.
    #[arg(long)]
    once: bool,
}

/// The shortest interval between two reads. A shorter interval would only cost the server time.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// The width of a frame that no terminal shows, unless COLUMNS is set.
const WIDTH: u16 = 100;

impl Top {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let database = connection.lookout().await?;
        let look = Look { colours: std::env::var_os("NO_COLOR").is_none_or(|no_color| no_color.is_empty()) };
        if self.once {
            let mut model = Model::new(self.table);
            model.update(Ok(watch::look(connection, &mut Some(database)).await?));
            return Ok(output::lines(frame(&model, look)?.trim_end())?);
        }
        if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
            return Err("top needs a terminal; use `reveille top --once` for text".to_owned().into());
        }
        let (act, actions) = mpsc::channel(16);
        let (send, updates) = mpsc::channel(16);
        let every = self.interval.max(SHORTEST_INTERVAL);
        tokio::spawn(watch::run(connection.clone(), database, every, actions, send));
        let stop = stop_signal()?;
        let mut terminal = ratatui::try_init()?;
        let shown = live(&mut terminal, Model::new(self.table), look, updates, act, stop).await;
        ratatui::restore();
        shown
    }
}

/// Draws a frame after each key and each update, until the user quits or `stop` is ready.
async fn live(
    terminal: &mut ratatui::DefaultTerminal,
    mut model: Model,
    look: Look,
    mut updates: mpsc::Receiver<Update>,
    act: mpsc::Sender<model::DatabaseAction>,
    stop: impl Future<Output = ()>,
) -> Outcome {
    let mut events = events();
    tokio::pin!(stop);
    loop {
        terminal.draw(|frame| draw::draw(frame, &model, look))?;
        tokio::select! {
            () = &mut stop => return Ok(()),
            event = events.recv() => match event {
                Some(Ok(Event::Key(key))) => match model.press(key) {
                    Reaction::Nothing => {}
                    Reaction::Quit => return Ok(()),
                    Reaction::Act(action) => {
                        model.message = Some(format!("{action} …"));
                        if act.try_send(action).is_err() {
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
            update = updates.recv() => match update {
                Some(Update::Overview(overview)) => model.update(overview),
                Some(Update::Done(message)) => model.message = Some(message),
                None => return Err("top no longer reads the database: start it again".to_owned().into()),
            },
        }
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

/// Returns one frame as text, with enough lines for all rows.
fn frame(model: &Model, look: Look) -> Result<String, Failure> {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = columns.unwrap_or(WIDTH).clamp(40, 1000);
    let rows = model.overview.as_ref().map_or(0, |overview| overview.len(model.pane));
    let height = draw::BESIDE_ROWS + rows.clamp(1, 1000) as u16;
    // A test backend, which draws into memory, cannot fail.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| draw::draw(frame, model, look));
    Ok(text(terminal.backend().buffer()))
}

/// Returns the text of a buffer, one line per row, without trailing blanks.
fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    };
    buffer.content().chunks(width).map(line).collect()
}
