//! What is said of a server that ends a connection or refuses one, and how soon a worker is back after an outage.

use reveille::Database;

use crate::harness::{database, host_and_port};

#[tokio::test]
async fn a_server_that_has_answered_is_not_asked_after() {
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
