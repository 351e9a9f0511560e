//! The error message when a server refuses a connection.

use reveille::Database;

use crate::harness::{database, host_and_port};

#[tokio::test]
async fn no_error_asks_if_a_server_runs_that_has_answered() {
    let database = database().await;
    let role = format!("limited_{:016x}", fastrand::u64(..));
    database.run(&format!("create role {role} login connection limit 0 password 'p'")).await;
    let config: tokio_postgres::Config = database.address.parse().unwrap();
    let ((host, port), dbname) = (host_and_port(&config), config.get_dbname().unwrap());
    let address = format!("host={host} port={port} user={role} password=p dbname={dbname}");
    let refused = Database::connect(address).await.err().unwrap();
    assert!(refused.is_unavailable(), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("the server says: too many connections") && !text.contains("running"), "{text}");
    database.run(&format!("drop role {role}")).await;
}
