//! Finding and killing processes by their parents.

use rustix::process::{Pid, Signal, kill_process};

/// Returns the children of these processes. On a system without `/proc`, this returns none.
pub fn children_of(parents: &[Pid]) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|process| process.file_name().to_str()?.parse().ok());
    let pids = pids.filter_map(Pid::from_raw);
    pids.filter(|&pid| parent_of(pid).is_some_and(|parent| parents.contains(&parent))).collect()
}

/// Reads the fourth field of `/proc/PID/stat`. The second field is the program's name in brackets, and the name may
/// contain brackets.
fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let behind_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let fields = std::str::from_utf8(stat.get(behind_name..)?).ok()?;
    fields.split_whitespace().nth(1)?.parse().ok().and_then(Pid::from_raw)
}

/// Kills a process and all its descendants, children before parents.
pub fn kill_tree(root: Pid) {
    let (mut all, mut generation) = (vec![root], vec![root]);
    while !generation.is_empty() {
        generation = children_of(&generation).into_iter().filter(|child| !all.contains(child)).collect();
        all.extend(&generation);
    }
    for pid in all.into_iter().rev() {
        let _ = kill_process(pid, Signal::KILL);
    }
}
