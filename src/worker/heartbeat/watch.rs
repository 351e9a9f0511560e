//! Finds out which other workers are dead.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::driver::Peer;

/// For each peer (another worker), the time at which the peer's last heartbeat was first seen. The times come from this
/// process's own clock: a stalled server or a jump of the server's clock must not make all workers look dead.
#[derive(Default)]
pub(super) struct PeerWatch {
    unchanged_since: HashMap<Peer, Instant>,
}

impl PeerWatch {
    /// Returns the dead peers: the last heartbeat of each has not changed for `dead_after`. For a peer in `gone`, whose
    /// listener has lost its session, the shorter time `gone_after` applies.
    pub(super) fn dead(
        &mut self,
        peers: &[Peer],
        gone: &[i64],
        now: Instant,
        dead_after: Duration,
        gone_after: Duration,
    ) -> Vec<Peer> {
        self.unchanged_since.retain(|peer, _| peers.contains(peer));
        let is_dead = |peer: &Peer| {
            let silent = now - *self.unchanged_since.entry(*peer).or_insert(now);
            silent >= dead_after || (silent >= gone_after && gone.contains(&peer.id))
        };
        peers.iter().copied().filter(is_dead).collect()
    }

    /// Starts the watch of these peers anew after a rescue. A peer that is still there has sent a heartbeat, or another
    /// session has locked its row. In the second case, the peer needs time to send a heartbeat.
    pub(super) fn begin_anew(&mut self, peers: &[Peer]) {
        self.unchanged_since.retain(|peer, _| !peers.contains(peer));
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

    fn dead(watch: &mut PeerWatch, peers: &[Peer], now: Instant) -> Vec<Peer> {
        watch.dead(peers, &[7], now, 30 * SECOND, 3 * SECOND)
    }

    #[test]
    fn a_peer_whose_session_is_lost_is_dead_after_three_seconds() {
        let (mut watch, start) = (PeerWatch::default(), Instant::now());
        let both = [peer(1, 0), peer(7, 0)];
        assert!(dead(&mut watch, &both, start).is_empty());
        assert!(dead(&mut watch, &both, start + 2 * SECOND).is_empty());
        assert_eq!(dead(&mut watch, &both, start + 3 * SECOND), [peer(7, 0)]);
    }

    #[test]
    fn a_peer_is_dead_only_after_30_seconds_of_watching() {
        let (mut watch, start) = (PeerWatch::default(), Instant::now());
        assert!(dead(&mut watch, &[peer(1, 0)], start).is_empty(), "its last heartbeat may be old");
        assert!(dead(&mut watch, &[peer(1, 0)], start + 29 * SECOND).is_empty());
        assert_eq!(dead(&mut watch, &[peer(1, 0)], start + 30 * SECOND), [peer(1, 0)]);
    }

    #[test]
    fn a_heartbeat_starts_the_watch_anew() {
        let (mut watch, start) = (PeerWatch::default(), Instant::now());
        dead(&mut watch, &[peer(1, 0)], start);
        dead(&mut watch, &[peer(1, 20)], start + 20 * SECOND);
        assert!(dead(&mut watch, &[peer(1, 20)], start + 40 * SECOND).is_empty());
    }

    #[test]
    fn a_silent_peer_does_not_make_others_dead() {
        let (mut watch, start) = (PeerWatch::default(), Instant::now());
        dead(&mut watch, &[peer(1, 0), peer(2, 0)], start);
        let dead = dead(&mut watch, &[peer(1, 0), peer(2, 29)], start + 31 * SECOND);
        assert_eq!(dead, [peer(1, 0)]);
    }
}
