//! Processor time and memory of processes, from `/proc`.

use std::fs;
use std::path::Path;

use super::stage::BenchStage;

/// The clock ticks in which the kernel counts processor time.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processor time used so far, in seconds.
pub struct Cpu {
    /// The sum over the given processes.
    pub processes: f64,
    /// The sum over all processes of the server; known only for a throw-away server.
    pub server: Option<f64>,
}

impl Cpu {
    pub fn so_far(pids: &[u32], stage: &BenchStage) -> Cpu {
        let processes = pids.iter().filter_map(|pid| used(&Path::new("/proc").join(pid.to_string()), false)).sum();
        Cpu { processes, server: stage.postmaster().map(server) }
    }
}

/// Returns the processor time of the postmaster and its children, including children that have ended.
fn server(postmaster: u32) -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let children = processes.filter(|path| parent(path) == Some(postmaster)).filter_map(|path| used(&path, false));
    children.sum::<f64>() + used(&Path::new("/proc").join(postmaster.to_string()), true).unwrap_or_default()
}

/// Returns the fields of `/proc/…/stat` from the third field, the state, on; see proc(5).
fn stat(process: &Path) -> Option<Vec<String>> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

fn parent(process: &Path) -> Option<u32> {
    stat(process)?.get(1)?.parse().ok()
}

fn used(process: &Path, with_ended_children: bool) -> Option<f64> {
    let fields = stat(process)?;
    let ticks = |place: usize| fields.get(place).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
    let own = ticks(11) + ticks(12);
    Some((own + if with_ended_children { ticks(13) + ticks(14) } else { 0.0 }) / TICKS_PER_SECOND)
}

/// Returns the peak of a process's resident memory, in MiB.
pub fn peak_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// The time that all processors of this machine have spent since the machine started, in clock ticks.
pub struct Machine {
    all: f64,
    stolen: f64,
}

impl Machine {
    /// Reads the machine's counters. Returns `None` if the kernel does not provide them.
    pub fn so_far() -> Option<Machine> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        // User, nice, system, idle, iowait, irq, softirq, steal. The first two include the guests' time. See proc(5).
        let ticks: Vec<f64> = stat.lines().next()?.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
        Some(Machine { all: ticks.iter().sum(), stolen: *ticks.get(7)? })
    }

    /// Returns the percentage of the time since `before` that the host gave to other machines. If this percentage is
    /// large, only the ratio of a figure to its baseline is meaningful.
    pub fn stolen_percent_since(&self, before: &Machine) -> f64 {
        (self.stolen - before.stolen) * 100.0 / (self.all - before.all).max(1.0)
    }
}
