//! Behaviour, on a real server. `cargo test` starts a throw-away one, or uses the server of `DATABASE_URL`.
#![allow(clippy::unwrap_used)]

mod harness;
mod steps;

mod arming;
mod batch;
mod cli;
mod complete;
mod conformance;
mod control;
mod copy;
mod doctor;
mod enqueue;
mod exact_limits;
mod exec;
mod failover;
mod fence;
mod layers;
mod limits;
mod liveness;
mod looks;
mod metrics;
mod middleware;
mod migrate;
mod model;
mod plans;
mod pooler;
mod properties;
mod rescue;
mod results;
mod roles;
mod rung;
mod schedules;
mod shutdown;
mod sleep;
mod sql;
mod testing;
mod throwaway;
mod tls;
mod top;
mod tracing;
mod unique;
mod views;
mod vouching;
mod wake;
mod work;
