//! What all requests of a dashboard share.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use reveille::Database;
use reveille::admin::Admin;
use reveille::admin::doctor::Doctor;
use tokio::sync::{Semaphore, watch};

use crate::dashboard::{Authorize, Redact, RedactWorkflow};
use crate::guard::form_token::Forms;
use crate::guard::hosts::Hosts;
use crate::readings::Readings;

/// The largest number of changes of many jobs that are under way at once.
const MOST_RUNS: usize = 4;
/// The largest number of requests that are answered at once, and of streams that are open at once.
const MOST_REQUESTS: usize = 64;
const MOST_STREAMS: usize = 256;

pub struct Shared {
    pub admin: Admin,
    pub doctor: Doctor,
    pub authorize: Box<Authorize>,
    pub redact: Option<Box<Redact>>,
    pub redact_workflow: Option<Box<RedactWorkflow>>,
    pub is_read_only: bool,
    pub hosts: Hosts,
    pub label: Option<String>,
    pub ignored_checks: Vec<String>,
    pub forms: Forms,
    pub statement_timeout: Duration,
    pub readings: Arc<Readings>,
    pub requests: Semaphore,
    pub streams: Semaphore,
    pub runs: Arc<Semaphore>,
    /// True once the streams are to end.
    pub is_ending: watch::Sender<bool>,
    /// Tells what waits for the end that nothing needs it any more, once this is dropped.
    is_used: Option<watch::Receiver<()>>,
}

impl Shared {
    pub fn new(database: Database, authorize: Box<Authorize>, hosts: Hosts) -> Shared {
        Shared {
            admin: database.admin(),
            doctor: database.doctor(),
            authorize,
            redact: None,
            redact_workflow: None,
            is_read_only: false,
            hosts,
            label: None,
            ignored_checks: Vec::new(),
            forms: Forms::random(),
            statement_timeout: Duration::from_secs(2),
            readings: Arc::default(),
            runs: Arc::new(Semaphore::new(MOST_RUNS)),
            requests: Semaphore::new(MOST_REQUESTS),
            streams: Semaphore::new(MOST_STREAMS),
            is_ending: watch::Sender::new(false),
            is_used: None,
        }
    }

    pub fn end_streams_after(&mut self, signal: impl Future<Output = ()> + Send + 'static) {
        let (is_used, use_ends) = watch::channel(());
        self.is_used = Some(use_ends);
        let is_ending = self.is_ending.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = signal => { is_ending.send_replace(true); }
                // All routers and streams of this dashboard are gone.
                () = is_used.closed() => {}
            }
        });
    }
}
