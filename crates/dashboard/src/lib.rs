//! The dashboard of [Reveille](reveille), the job queue on Postgres: pages for a browser, drawn on the server, as a
//! router for an axum application. The command `reveille dashboard` serves the same pages.
//!
//! [`Dashboard`] has the options. The pages need no other service: no build step, no foreign script, nothing is loaded
//! from elsewhere. They work without script, too; then those without a form to fill in are loaded again every 10 s
//! instead of being live.
//!
//! What the pages read is read once for all open pages. Together, open pages keep the database's server busy for less
//! than 1 % of the time with each reading.
#![forbid(unsafe_code)]

mod access;
mod act;
mod assets;
mod dashboard;
mod draw;
mod encrypted;
mod guard;
mod job_filter;
mod once;
mod page;
mod posted;
mod readings;
mod redact;
mod router;
mod runs;
mod serve;
mod shared;
mod visit;

pub use access::{Access, Right, Viewer};
pub use dashboard::{Dashboard, Field};
