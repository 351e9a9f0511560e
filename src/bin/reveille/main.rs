//! The command `reveille`.

fn main() {}
