//! The checks of a child.

use futures::FutureExt;
use futures::future::BoxFuture;
use reveille::handler::StopReason;

use super::Finding;
use super::player::Player;
use crate::pipe::message;

/// The size in bytes of a payload in the check of long lines, and of each payload in the check of back-pressure.
const LONG: usize = 15 << 20;
const LARGE: usize = 256 << 10;
/// The number of jobs for each slot in the check of answers.
const ROUNDS: usize = 5;

/// A check of a child that other checks use, too.
type SharedCheck = for<'a> fn(&'a mut Player) -> BoxFuture<'a, Finding>;
/// A check at whose end the child has exited.
type OwnCheck = fn(Player) -> BoxFuture<'static, Finding>;

/// Returns the checks that one child passes one after the other.
pub fn with_one_child() -> [(&'static str, SharedCheck); 6] {
    [
        ("one-by-one", |player| one_by_one(player).boxed()),
        ("all-slots", |player| all_slots(player).boxed()),
        ("cancel", |player| cancel(player).boxed()),
        ("late-cancel", |player| late_cancel(player).boxed()),
        ("long-line", |player| long_line(player).boxed()),
        ("back-pressure", |player| back_pressure(player).boxed()),
    ]
}

/// Returns the checks that need a child each.
pub fn with_own_children() -> [(&'static str, OwnCheck); 4] {
    [
        ("stop", |player| stop(player).boxed()),
        ("end-of-input", |player| end_of_input(player).boxed()),
        ("unknown-message", |player| unknown_message(player, b"{\"type\":\"surprise\"}\n").boxed()),
        ("broken-line", |player| unknown_message(player, b"{\"type\":\"job\",\"run\":\n").boxed()),
    ]
}

async fn one_by_one(player: &mut Player) -> Finding {
    for _ in 0..ROUNDS {
        player.give().await?;
        player.answers().await?;
    }
    Ok(format!("answered {ROUNDS} jobs, once each"))
}

async fn all_slots(player: &mut Player) -> Finding {
    let jobs = player.slots * ROUNDS;
    for _ in 0..jobs {
        player.answers_but(player.slots - 1).await?;
        player.give().await?;
    }
    player.answers().await?;
    Ok(format!("answered {jobs} jobs, up to {} at once", player.slots))
}

async fn cancel(player: &mut Player) -> Finding {
    for reason in [StopReason::Cancelled, StopReason::TimedOut, StopReason::Lost, StopReason::Shutdown] {
        let run = player.give().await?;
        player.send(&message::cancel(run, reason)).await?;
        player.answers().await?;
    }
    Ok("answered each cancelled run once".into())
}

/// A cancel may cross with the answer to its run.
async fn late_cancel(player: &mut Player) -> Finding {
    let run = player.give().await?;
    player.answers().await?;
    player.send(&message::cancel(run, StopReason::Cancelled)).await?;
    player.give().await?;
    player.answers().await?;
    Ok("ignored a cancel of an answered run".into())
}

async fn long_line(player: &mut Player) -> Finding {
    player.give_with(&format!("\"{}\"", "x".repeat(LONG))).await?;
    player.answers().await?;
    Ok(format!("answered a job of {} MiB", LONG >> 20))
}

/// The worker may write for a while without reading.
async fn back_pressure(player: &mut Player) -> Finding {
    let payload = format!("\"{}\"", "x".repeat(LARGE));
    for _ in 0..player.slots {
        player.give_with(&payload).await?;
    }
    player.answers().await?;
    Ok(format!("took {} jobs of {} KiB before its answers were read", player.slots, LARGE >> 10))
}

async fn stop(mut player: Player) -> Finding {
    player.give().await?;
    player.send(&message::stop()).await?;
    player.answers().await?;
    match player.exit().await? {
        status if status.success() => Ok("answered its run, and exited with status 0".into()),
        status => Err(format!("the child exited with {status} instead of status 0")),
    }
}

async fn end_of_input(mut player: Player) -> Finding {
    player.give().await?;
    player.close_input();
    player.exit().await.map(|status| format!("exited in time ({status})"))
}

async fn unknown_message(mut player: Player, line: &[u8]) -> Finding {
    player.send(line).await?;
    match player.exit().await? {
        status if status.success() => Err("the child exited with status 0, as if nothing were wrong".into()),
        status => Ok(format!("exited ({status})")),
    }
}
