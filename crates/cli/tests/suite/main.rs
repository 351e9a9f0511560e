//! Tests of the command as its users run it, on a real server.

#![allow(clippy::unwrap_used)]

#[path = "../../../../tests/suite/harness.rs"]
#[allow(dead_code)]
mod harness;
#[path = "../../../../tests/suite/pgbouncer.rs"]
#[allow(dead_code)]
mod pgbouncer;
#[path = "../../../../tests/suite/prometheus.rs"]
#[allow(dead_code)]
mod prometheus;

mod actions;
mod answers;
mod clean;
mod cli;
mod control;
mod dashboard;
mod demo_dashboard;
mod doctor;
mod doctor_handlers;
mod doctor_roles;
mod emit;
mod encryption;
mod enqueue_file;
mod examples;
mod exec;
mod exec_processes;
mod help;
mod json;
mod listing;
mod liveness;
mod many;
mod metrics;
mod migrate;
mod notifications;
mod odd_json;
mod outage;
mod parts;
mod pipe;
mod pipe_check;
mod pipe_ends;
mod pipe_hostile;
mod pipes;
mod pooler;
mod progress;
mod rescue;
mod results;
mod schedules;
mod terminal;
mod throwaway;
mod times;
mod top;
mod unique;
mod workflow;
