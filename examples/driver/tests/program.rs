//! The program of the example.

use std::process::Command;

#[test]
fn it_enqueues_and_runs_three_jobs() {
    let output = Command::new(env!("CARGO_BIN_EXE_reveille-driver-example")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut welcomed: Vec<&str> = printed.lines().collect();
    welcomed.sort_unstable();
    assert_eq!(welcomed, ["welcome, user 1", "welcome, user 2", "welcome, user 3"]);
}
