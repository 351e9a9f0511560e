//! Workers rescue the jobs of a dead worker.

use crate::harness::database;

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_logs_each_job_that_dies_of_it() {
    let database = database().await;
    let insert = "insert into reveille.jobs (kind, reserved_at, reserved_by, attempts, max_attempts)
        values ('dies', now(), 7, 1, 1), ('lives', now(), 7, 1, 2), ('dies', now(), 7, 1, 1)";
    database.run(insert).await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.args(["work", "--exec", "true"]).env("DATABASE_URL", &database.address).env("RUST_LOG", "reveille=info");
    let mut process = crate::exec::Worker(command.stderr(std::process::Stdio::piped()).spawn().unwrap());
    let log = std::io::BufRead::lines(std::io::BufReader::new(process.0.stderr.take().unwrap()));
    let dead = tokio::task::spawn_blocking(move || {
        let mut dead: Vec<String> =
            log.map(Result::unwrap).filter(|line| line.contains("reason=\"lost\"")).take(2).collect();
        dead.sort();
        dead
    });
    let dead = crate::harness::soon("both deaths are logged", dead).await.unwrap();
    for (line, id) in dead.iter().zip([1, 3]) {
        assert!(line.contains("ERROR dead") && line.contains(&format!("id={id} ")), "{dead:#?}");
    }
}
