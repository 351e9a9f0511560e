//! Which of the other workers are dead, as far as one worker has seen.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::driver::Peer;

/// For how long each peer has been seen with the same last heartbeat, by this process's own clock: a stalled server or
/// a jump of its clock must not look like everybody's death.
#[derive(Default)]
pub(super) struct Watch(HashMap<Peer, Instant>);

impl Watch {
    /// Those that have not beaten under this watch for `dead_after`; or, if their session is gone, for `gone_after`.
    pub(super) fn dead(
        &mut self,
        peers: &[Peer],
        gone: &[i64],
        now: Instant,
        dead_after: Duration,
        gone_after: Duration,
    ) -> Vec<Peer> {
        self.0.retain(|peer, _| peers.contains(peer));
        let is_dead = |peer: &Peer| {
            let silent = now - *self.0.entry(*peer).or_insert(now);
            silent >= dead_after || (silent >= gone_after && gone.contains(&peer.id))
        };
        peers.iter().copied().filter(is_dead).collect()
    }

    /// These were to be declared dead. One that lives on has beaten, or its row is locked, so that it cannot beat for
    /// the moment.
    pub(super) fn begin_anew(&mut self, peers: &[Peer]) {
        self.0.retain(|peer, _| !peers.contains(peer));
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(id: i64, seen: u64) -> Peer {
        Peer { id, last_seen_at: SystemTime::UNIX_EPOCH + Duration::from_secs(seen) }
    }

    fn dead(watch: &mut Watch, peers: &[Peer], now: Instant) -> Vec<Peer> {
        watch.dead(peers, &[7], now, 30 * SECOND, 3 * SECOND)
    }

    #[test]
    fn a_peer_whose_session_is_gone_is_dead_after_some_missed_beats() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let both = [peer(1, 0), peer(7, 0)];
        assert!(dead(&mut watch, &both, start).is_empty());
        assert!(dead(&mut watch, &both, start + 2 * SECOND).is_empty());
        assert_eq!(dead(&mut watch, &both, start + 3 * SECOND), [peer(7, 0)]);
    }

    #[test]
    fn a_peer_is_dead_only_after_its_silence_was_watched() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        assert!(dead(&mut watch, &[peer(1, 0)], start).is_empty(), "however long ago it was seen");
        assert!(dead(&mut watch, &[peer(1, 0)], start + 29 * SECOND).is_empty());
        assert_eq!(dead(&mut watch, &[peer(1, 0)], start + 30 * SECOND), [peer(1, 0)]);
    }

    #[test]
    fn a_beat_starts_the_watch_anew() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        dead(&mut watch, &[peer(1, 0)], start);
        dead(&mut watch, &[peer(1, 20)], start + 20 * SECOND);
        assert!(dead(&mut watch, &[peer(1, 20)], start + 40 * SECOND).is_empty());
    }

    #[test]
    fn one_silent_peer_does_not_drag_others_along() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        dead(&mut watch, &[peer(1, 0), peer(2, 0)], start);
        let dead = dead(&mut watch, &[peer(1, 0), peer(2, 29)], start + 31 * SECOND);
        assert_eq!(dead, [peer(1, 0)]);
    }
}
