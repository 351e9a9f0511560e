//! Tests of the pages as a browser asks for them, on a real server.

#![allow(clippy::unwrap_used)]

#[path = "../../../../tests/suite/harness.rs"]
#[allow(dead_code)]
mod harness;

mod access;
mod actions;
mod browser;
mod bulk;
mod dead;
mod encrypted;
mod enqueue;
mod forged;
mod headers;
mod hostile;
mod hosts;
mod kinds;
mod linked_jobs;
mod lists;
mod once;
mod outage;
mod overview;
mod paths;
mod pauses;
mod redact;
mod roles;
mod schedules;
mod sockets;
mod streams;
mod together;
mod web;
mod workers;
mod workflows;
