//! The program of the example.

use std::process::Command;

#[test]
fn it_prints_what_its_documentation_says() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_reveille-sqlx-example"));
    let output = program.env_remove("DATABASE_URL").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "welcome, ada@example.org\ncharges 500\n");
}
