//! `top`: queues, workers and jobs, live.

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
use watch::Heard;

/// Looks at the views once a second, on one connection; the role reveille_monitor will do to look, reveille_admin to
/// act. NO_COLOR is honoured.
#[derive(Args)]
pub struct Top {
    /// How often to look.
    #[arg(long, default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Which table to begin with.
    #[arg(long, value_enum, default_value_t = Pane::Queues)]
    table: Pane,
    /// Print one frame as text, with all rows, and end; COLUMNS says how wide.
    #[arg(long)]
    once: bool,
}

/// Looking more often than this would only make work.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// How wide a frame is that no terminal says it of.
const WIDTH: u16 = 100;

impl Top {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let database = connection.lookout().await?;
        let look = Look { colours: std::env::var_os("NO_COLOR").is_none_or(|no_color| no_color.is_empty()) };
        if self.once {
            let mut model = Model::new(self.table);
            model.hear(Ok(watch::look(connection, &mut Some(database)).await?));
            return Ok(output::lines(frame(&model, look)?.trim_end())?);
        }
        if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
            return Err("top needs a terminal; use `reveille top --once` for text".to_owned().into());
        }
        let (act, actions) = mpsc::channel(16);
        let (tell, heard) = mpsc::channel(16);
        let every = self.interval.max(SHORTEST_INTERVAL);
        tokio::spawn(watch::run(connection.clone(), database, every, actions, tell));
        let stop = told_to_stop()?;
        let mut terminal = ratatui::try_init()?;
        let shown = live(&mut terminal, Model::new(self.table), look, heard, act, stop).await;
        ratatui::restore();
        shown
    }
}

/// Draws whatever comes, until told to end.
async fn live(
    terminal: &mut ratatui::DefaultTerminal,
    mut model: Model,
    look: Look,
    mut heard: mpsc::Receiver<Heard>,
    act: mpsc::Sender<model::Action>,
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
                            model.message = Some("still busy with what was asked before".into());
                        }
                    }
                },
                // Of another size, it is drawn anew as well.
                Some(Ok(_)) => {}
                // The terminal is gone.
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            told = heard.recv() => match told {
                Some(Heard::Overview(overview)) => model.hear(overview),
                Some(Heard::Done(message)) => model.message = Some(message),
                None => return Err("nobody looks at the database any more".to_owned().into()),
            },
        }
    }
}

/// Keys, and changes of size: read on a thread of its own, which ends with the process.
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

/// Whatever ends a process in order, from now on, so that the terminal is restored then.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
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

/// One frame, as high as it has rows.
fn frame(model: &Model, look: Look) -> Result<String, Failure> {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = columns.unwrap_or(WIDTH).clamp(40, 1000);
    let rows = model.overview.as_ref().map_or(0, |overview| overview.len(model.pane));
    let height = draw::BESIDE_ROWS + rows.clamp(1, 1000) as u16;
    // Nothing can fail in memory.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| draw::draw(frame, model, look));
    Ok(text(terminal.backend().buffer()))
}

/// What stands in a buffer, a line a row, without the blanks at the ends.
fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    };
    buffer.content().chunks(width).map(line).collect()
}
