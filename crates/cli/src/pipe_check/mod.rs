//! `reveille pipe-check`: plays the worker, and tries a child by the rules of `docs/reference/pipe.md`.

mod checks;
mod player;

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::connection::duration;
use crate::{Failure, Outcome, output};

use checks::{with_one_child, with_own_children};
use player::Player;

#[derive(Args)]
pub struct PipeCheckCommand {
    /// The shell command of the child, as for `reveille work --pipe`.
    command: String,
    /// The kind of the jobs that the child gets. Default: the first kind that the child names, else check.
    #[arg(long)]
    kind: Option<String>,
    /// The payload of the jobs, as JSON. An answer `fail` is as good as `done`.
    #[arg(long, default_value = "{}", value_name = "JSON")]
    payload: String,
    /// The number of jobs that the child gets at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    slots: u16,
    /// The time that the child has to be ready, and to answer.
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "DURATION")]
    within: Duration,
    /// Make only this check, such as stop. May be repeated.
    #[arg(long, value_name = "CHECK")]
    only: Vec<String>,
    /// Print one JSON object per check.
    #[arg(long)]
    json: bool,
}

/// What a check found: a remark, or what is wrong.
type Finding = Result<String, String>;

impl PipeCheckCommand {
    pub async fn run(self) -> Outcome {
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&self.payload) {
            return Err(Failure::Error(format!("the payload is not JSON: {error}")));
        }
        let known = with_one_child().map(|(name, _)| name).into_iter().chain(with_own_children().map(|(name, _)| name));
        let known: Vec<&str> = known.collect();
        if let Some(unknown) = self.only.iter().find(|only| !known.contains(&only.as_str())) {
            return Err(Failure::Error(format!("there is no check {unknown:?}; the checks are {}", known.join(", "))));
        }
        let is_wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        let mut failed = 0;
        let mut report = |name: &str, finding: Finding| -> std::io::Result<()> {
            let is_ok = finding.is_ok();
            failed += usize::from(!is_ok);
            let (Ok(what) | Err(what)) = finding;
            let text = format!("{}  {name:16}{what}", if is_ok { "ok    " } else { "FAILED" });
            output::answer(self.json, json!({"check": name, "ok": is_ok, "detail": what}), text)
        };
        let player = self.player().await;
        let ready = player.as_ref().map(|player| player.description.clone()).map_err(Clone::clone);
        report("ready", ready)?;
        if let Ok(mut player) = player {
            for (name, check) in with_one_child().into_iter().filter(|(name, _)| is_wanted(name)) {
                let finding = check(&mut player).await;
                // After a failed check nobody knows what the child will write next.
                if finding.is_err()
                    && let Ok(fresh) = self.player().await
                {
                    player = fresh;
                }
                report(name, finding)?;
            }
            drop(player);
            for (name, check) in with_own_children().into_iter().filter(|(name, _)| is_wanted(name)) {
                let finding = match self.player().await {
                    Ok(player) => check(player).await,
                    Err(error) => Err(error),
                };
                report(name, finding)?;
            }
        }
        if failed > 0 { Err(Failure::NotFound) } else { Ok(()) }
    }

    /// Starts a child, and waits until it is ready.
    async fn player(&self) -> Result<Player, String> {
        Player::start(&self.command, self.slots.into(), self.within, self.kind.clone(), self.payload.clone()).await
    }
}
