//! What a worker says about itself: its id and its host.

pub(crate) fn host_name() -> String {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = from_kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown".into() } else { name.into() }
}

/// Returns a new worker id. The id is random, since ids from a counter in the database could repeat after a crash or a
/// fail-over.
pub(crate) fn random_id() -> i64 {
    fastrand::i64(1..)
}
