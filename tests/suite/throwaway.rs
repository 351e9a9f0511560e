//! A throw-away server leaves no file and no process behind.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use reveille::Database;
use reveille::dev::{Server, Stop};

use crate::harness::{client, eventually};

/// Returns true if the command line of any process names the folder.
fn is_in_use(folder: &Path) -> bool {
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()))
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|command| String::from_utf8_lossy(&command).contains(&name))
}

#[tokio::test]
async fn a_dropped_server_leaves_no_process_and_no_folder() {
    let server = Server::start().unwrap();
    let folder = server.data_dir().parent().unwrap().to_owned();
    Database::connect(server.url("postgres")).await.unwrap().migrate().await.unwrap();
    assert!(folder.exists() && is_in_use(&folder));
    drop(server);
    assert!(!folder.exists() && !is_in_use(&folder));
}

#[tokio::test]
async fn a_restart_keeps_data_and_address() {
    let mut server = Server::start().unwrap();
    let url = server.url("postgres");
    client(&url).await.batch_execute("create table kept (); checkpoint").await.unwrap();
    for stop in [Stop::Fast, Stop::Immediate] {
        server.restart(stop).unwrap();
        client(&url).await.batch_execute("select * from kept").await.unwrap();
    }
}

#[tokio::test]
async fn a_table_without_a_schema_does_not_land_among_reveilles() {
    let server = Server::start().unwrap();
    Database::connect(server.url("postgres")).await.unwrap().migrate().await.unwrap();
    let make = "create table mine (); select relnamespace::regnamespace::text from pg_class where relname = 'mine'";
    let made = client(&server.url("postgres")).await.simple_query(make).await.unwrap();
    let row = made.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(row, Some("public"));
}

#[tokio::test]
async fn a_server_can_have_its_own_settings() {
    let server = Server::options().setting("work_mem", "7MB").start().unwrap();
    let row = client(&server.url("postgres")).await.query_one("show work_mem", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "7MB");
}

#[test]
fn a_setting_that_the_server_refuses_is_one_clear_error() {
    let error = Server::options().setting("no_such_setting", "1").start().unwrap_err().to_string();
    assert!(error.contains("no_such_setting") && !error.contains('\n'), "{error}");
}

#[test]
fn the_password_cannot_be_guessed_from_a_known_seed() {
    let password = || {
        fastrand::seed(7);
        Server::start().unwrap().url("postgres").split('@').next().unwrap().to_owned()
    };
    assert_ne!(password(), password());
}

#[tokio::test]
async fn root_does_not_write_through_a_link_of_the_servers_user() {
    let primary = Server::start().unwrap();
    let owner = primary.data_dir().metadata().unwrap().uid();
    let victim = std::env::temp_dir().join(format!("reveille-victim-{}", std::process::id()));
    std::fs::write(&victim, "as it was").unwrap();
    if owner == victim.metadata().unwrap().uid() {
        return; // Without root, all files belong to one user.
    }
    // A standby begins as a copy of the primary's folder, including the links in the folder.
    let settings = primary.data_dir().join("postgresql.auto.conf");
    std::fs::remove_file(&settings).unwrap();
    std::os::unix::fs::symlink(&victim, &settings).unwrap();
    let refused = primary.standby().await.unwrap_err().to_string();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "as it was");
    assert_eq!(victim.metadata().unwrap().uid(), 0);
    std::fs::remove_file(&victim).unwrap();
    assert!(refused.contains("postgresql.auto.conf") && !refused.contains('\n'), "{refused}");
}

#[tokio::test]
async fn a_kept_server_lives_on_until_its_stop_command() {
    let kept = Server::start().unwrap().keep().unwrap();
    client(&kept.url).await.batch_execute("select 1").await.unwrap();
    assert!(Command::new("sh").args(["-c", &kept.stop_command]).status().unwrap().success());
    eventually("the server's processes and files are gone", async || !kept.folder.exists() && !is_in_use(&kept.folder))
        .await;
}
