//! What a worker's sessions get ready while it has nothing to do.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde_json::Value;
use tokio_postgres::types::{Json, Type};

use super::Postgres;
use super::session::{Params, Statement};
use crate::error::Result;

/// A queue of which there are no jobs: a queue's name is not empty.
const NO_QUEUE: &str = "";
/// A worker may claim with one session while it settles with another, and looks back with a third.
const SESSIONS: usize = 3;

/// Runs what claims, looks back and settles once in each of some sessions, with nothing to do: opening one and planning these takes
/// about as long as working some hundred jobs, and many workers that are woken for the same burst would all do it at once.
pub(super) async fn warm_up(driver: &Postgres) -> Result<()> {
    if driver.warm.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let none = Nothing::default();
    let (first, times, ids) = (1_i64, [SystemTime::UNIX_EPOCH; 4].as_slice(), [0_i64; 4].as_slice());
    let places = [(&times as _, Type::TIMESTAMPTZ_ARRAY), (&ids as _, Type::INT8_ARRAY)];
    let queue: &Params<'_> = &[(&NO_QUEUE, Type::TEXT)];
    let claim = [queue, &[(&first, Type::INT8), (&none.worker, Type::INT8)], &places].concat();
    let heads = [queue, &places].concat();
    let settle: &Params<'_> = &[
        (&none.ids, Type::INT8_ARRAY),
        (&none.ids, Type::INT8_ARRAY),
        (&none.attempts, Type::INT4_ARRAY),
        (&none.times, Type::TIMESTAMPTZ_ARRAY),
        (&none.outcomes, Type::TEXT_ARRAY),
        (&none.seconds, Type::FLOAT8_ARRAY),
        (&none.seconds, Type::FLOAT8_ARRAY),
        (&none.results, Type::JSONB_ARRAY),
    ];
    let statements = &driver.statements;
    let all: [Statement<'_>; 4] = [
        (&statements.settle_finished, settle),
        (&statements.claim, &claim),
        (&statements.claim_shared, &claim),
        (&statements.heads, &heads),
    ];
    driver.sessions.warm_up(SESSIONS, &all).await
}

/// No endings, and no worker.
#[derive(Default)]
struct Nothing {
    worker: i64,
    ids: Vec<i64>,
    attempts: Vec<i32>,
    times: Vec<SystemTime>,
    outcomes: Vec<String>,
    seconds: Vec<f64>,
    results: Vec<Option<Json<Value>>>,
}
