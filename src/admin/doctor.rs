//! Checks of the server. They find reasons why a queue is slow or unsafe, or why workers receive no notifications, and
//! give advice.
//!
//! ```no_run
//! # async fn example() -> reveille::Result<()> {
//! let database = reveille::Database::connect("postgres://localhost/shop").await?;
//! for found in database.doctor().examine().await? {
//!     println!("{} {}: {}", found.check, found.state, found.finding);
//! }
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Row};

use crate::database::migrate::made;
use crate::database::{Database, connect};
use crate::error::{Error, Result};

/// The names of the checks, in the order of the findings.
pub const CHECKS: [&str; 26] = [
    "server",
    "connections",
    "settings",
    "clock",
    "listening",
    "notifications",
    "commits",
    "horizon",
    "schema",
    "indexes",
    "trigger",
    "functions",
    "partitions",
    "vacuum",
    "roles",
    "grants",
    "dashboard",
    "workers",
    "waiting",
    "handlers",
    "reserved",
    "stuck",
    "isolated",
    "schedules",
    "locks",
    "history",
];

/// A finding of a check. A check yields one finding with [`Verdict::Ok`], or one finding for each thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The name of the check, one of [`CHECKS`].
    pub check: String,
    /// The finding's weight.
    pub state: Verdict,
    /// The finding in words. The text never contains a statement, a payload or a password.
    pub finding: String,
    /// The advice: what to do about the finding; `None` if all is well.
    pub advice: Option<String>,
}

/// The weight of a [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All is well.
    Ok,
    /// The finding is worth knowing, but not urgent.
    Note,
    /// Jobs do not run as they should, or soon will not.
    Bad,
}

/// Examines a [`Database`]; made by [`Database::doctor`].
#[derive(Debug, Clone)]
pub struct Doctor {
    database: Database,
    patience: Duration,
}

/// A statement that makes several checks at once.
struct Question {
    checks: &'static [&'static str],
    sql: &'static str,
}

static SERVER: Question = Question {
    checks: &["server", "connections", "settings", "notifications", "commits", "horizon"],
    sql: include_str!("../../sql/doctor_server.sql"),
};
/// The questions that read Reveille's tables. Each question needs more privileges than the previous question.
static TABLES: [Question; 7] = [
    Question { checks: &["functions", "grants"], sql: include_str!("../../sql/doctor_parts.sql") },
    Question {
        checks: &["indexes", "trigger", "partitions", "vacuum", "roles"],
        sql: include_str!("../../sql/doctor_schema.sql"),
    },
    Question { checks: &["dashboard"], sql: include_str!("../../sql/doctor_dashboard.sql") },
    Question {
        checks: &["workers", "waiting", "reserved", "stuck", "schedules"],
        sql: include_str!("../../sql/doctor_work.sql"),
    },
    Question { checks: &["isolated"], sql: include_str!("../../sql/doctor_isolated.sql") },
    Question { checks: &["handlers"], sql: include_str!("../../sql/doctor_handlers.sql") },
    Question { checks: &["locks", "history"], sql: include_str!("../../sql/doctor_upkeep.sql") },
];

/// A transaction that is open for longer is worth a note.
const LONG_TRANSACTION: Duration = Duration::from_secs(300);
/// The longest time that a notification may take to arrive.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time that connecting, listening and receiving the notification may take together.
const LISTENING_TIMEOUT: Duration = Duration::from_secs(15);
const LARGEST_CLOCK_DIFFERENCE: Duration = Duration::from_secs(1);

/// The fate of a notification.
enum Notified {
    /// It arrived after this time.
    After(Duration),
    /// It was sent, and did not arrive within the timeout.
    Never,
    /// Its commit did not end within the timeout.
    NotSent,
}

impl Database {
    /// Returns a [`Doctor`]. Its checks find reasons why a queue is slow or unsafe, or why workers receive no
    /// notifications, and give advice.
    pub fn doctor(&self) -> Doctor {
        Doctor { database: self.clone(), patience: LONG_TRANSACTION }
    }
}

impl Doctor {
    /// Sets the age from which a transaction is worth a note. A transaction twelve times as old is bad. Default 5
    /// minutes.
    pub fn patience(mut self, patience: Duration) -> Doctor {
        const CENTURY: Duration = Duration::from_secs(3_155_760_000);
        self.patience = patience.min(CENTURY);
        self
    }

    /// Makes all checks, and returns their findings in the order of [`CHECKS`]. The checks change nothing, and are
    /// cheap on a busy server.
    ///
    /// If the schema is missing or not current, a finding says so, and the checks that need the schema are left out. If
    /// the user may not read what a check needs, a note says so.
    ///
    /// # Errors
    /// Unavailable if the server cannot be reached.
    pub async fn examine(&self) -> Result<Vec<Finding>> {
        let mut findings = self.ask(&SERVER).await?;
        findings.push(self.clock().await?);
        findings.push(self.listening().await);
        let unfit = findings.iter().any(|found| found.check == "server" && found.state == Verdict::Bad);
        let schema = self.schema().await?;
        if schema.state == Verdict::Bad || unfit {
            let skipped: Vec<&str> = TABLES.iter().flat_map(|question| question.checks).copied().collect();
            let finding = format!("not checked: {}", skipped.join(", "));
            findings.extend([schema, note("schema", finding, "fix the above first, then run the doctor again")]);
        } else {
            findings.push(schema);
            for question in &TABLES {
                findings.extend(self.ask(question).await?);
            }
        }
        findings.sort_by_key(|found| CHECKS.iter().position(|check| *check == found.check));
        Ok(findings)
    }

    async fn ask(&self, question: &Question) -> Result<Vec<Finding>> {
        let error = match self.query(question).await {
            Ok(rows) => return rows.iter().map(read).collect(),
            Err(error) => error,
        };
        let (first, checks) = (question.checks[0], question.checks.join(", "));
        let finding = format!("not checked: {checks}: {error}");
        let code = error.code().map_or("", |code| code.code());
        if error.is_denied() {
            Ok(vec![note(first, finding, &self.as_reader())])
        } else if error.is_schema_missing() {
            Ok(vec![bad(first, finding, "restore the missing part; `reveille migrate --print` shows its SQL")])
        } else if matches!(code, "55P03" | "57014") {
            let advice = "find in pg_locks which session holds a lock on Reveille's tables, and end its transaction";
            Ok(vec![bad(first, finding, advice)])
        } else if code.starts_with("22") {
            let advice = "the name of a queue or a kind has bytes that are not UTF-8; find it with `set \
                client_encoding = 'SQL_ASCII'`, and rename the queue or the kind";
            Ok(vec![bad(first, finding, advice)])
        } else {
            Err(error)
        }
    }

    async fn query(&self, question: &Question) -> Result<Vec<Row>> {
        let patience = self.patience.as_secs_f64();
        let (functions, views) = (made("function"), made("view"));
        let params: &[(&(dyn ToSql + Sync), Type)] = match question.checks[0] {
            "server" => &[(&patience, Type::FLOAT8)],
            "functions" => &[(&functions, Type::TEXT_ARRAY), (&views, Type::TEXT_ARRAY)],
            _ => &[],
        };
        self.database.read("examine the server", question.sql, params).await
    }

    /// The advice if this user may not read what a check needs.
    fn as_reader(&self) -> String {
        let schema = self.database.schema_name();
        format!("run the doctor as a member of the role {schema}_admin, or as the schema's owner")
    }

    async fn schema(&self) -> Result<Finding> {
        match self.database.check().await {
            Ok(()) => Ok(ok("schema", format!("{} is current", self.database.schema_name()))),
            Err(error) if error.is_denied() => {
                Ok(note("schema", format!("this user may not read the schema's version: {error}"), &self.as_reader()))
            }
            Err(error) if error.is_schema_missing() || error.is_schema_mismatch() => {
                // The part of the message after the last semicolon is the advice.
                let message = error.to_string();
                let (finding, advice) = message.rsplit_once("; ").unwrap_or((&message, "run `reveille migrate`"));
                Ok(bad("schema", finding, advice))
            }
            Err(error) => Err(error),
        }
    }

    /// Compares this program's clock with the database's clock, by the quickest of 3 answers.
    async fn clock(&self) -> Result<Finding> {
        let client = self.database.client().await?;
        let mut best: Option<(Duration, f64)> = None;
        for _ in 0..3 {
            let (asked, started) = (SystemTime::now(), Instant::now());
            let rows = client.query_typed("select pg_catalog.clock_timestamp() as now", &[]).await;
            let rows = rows.map_err(|error| Error::database("read the clock", error))?;
            let round_trip = started.elapsed();
            let Some(theirs) = rows.first().map(|row| row.get::<_, SystemTime>("now")) else { continue };
            if best.is_none_or(|(quickest, _)| round_trip < quickest) {
                best = Some((round_trip, seconds_between(asked + round_trip / 2, theirs)));
            }
        }
        let (round_trip, ahead) =
            best.ok_or_else(|| Error::unavailable("cannot read the server's clock: the server returned no row"))?;
        Ok(judge_clock(ahead, round_trip))
    }

    /// Checks whether a notification of another session arrives at the address where workers listen.
    async fn listening(&self) -> Finding {
        let arrived = tokio::time::timeout(LISTENING_TIMEOUT, self.notify()).await;
        match arrived.unwrap_or_else(|_| Err(Error::unavailable("cannot listen: the server does not answer"))) {
            Ok(Notified::After(delay)) => {
                ok("listening", format!("a notification arrived after {:.1} ms", delay.as_secs_f64() * 1e3))
            }
            Ok(Notified::NotSent) => bad(
                "listening",
                format!("no notification could be sent within {NOTIFICATION_TIMEOUT:?}: its commit waits for another"),
                "see the check `commits`",
            ),
            Ok(Notified::Never) => bad(
                "listening",
                format!(
                    "no notification arrived within {NOTIFICATION_TIMEOUT:?}: a transaction pooler is in the way, or \
                     the listen address leads to another database; workers poll, and notice a crashed worker only \
                     after 30 s"
                ),
                "give workers an address of this database past the pooler: --listen-url, DatabaseOptions::listen_url",
            ),
            Err(error) => {
                bad("listening", error.to_string(), "check the address that workers listen at, and its grants")
            }
        }
    }

    /// Sends a notification to another session, and waits for it.
    async fn notify(&self) -> Result<Notified> {
        let failed = |error| Error::database("listen", error);
        let (listener, mut connection) = connect::open(self.database.listen_address()).await?;
        let (received, mut inbox) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = received.send(notification.payload().to_owned());
                }
            }
        });
        let channel = format!("{}.doctor", self.database.schema_name());
        listener.batch_execute(&format!("listen \"{channel}\"")).await.map_err(failed)?;
        // Another session sends the notification, because a session behind a pooler may receive its own notifications
        // and no others.
        let (sender, token) = (self.database.busy_session().await?, format!("{:016x}", fastrand::u64(..)));
        let sent = Instant::now();
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&channel, Type::TEXT), (&token, Type::TEXT)];
        let sending = sender.client()?.query_typed("select pg_catalog.pg_notify($1, $2)", &params);
        let Ok(answer) = tokio::time::timeout(NOTIFICATION_TIMEOUT, sending).await else {
            return Ok(Notified::NotSent);
        };
        sender.finish();
        answer.map_err(failed)?;
        let receiving = async {
            while let Some(payload) = inbox.recv().await {
                if payload == token {
                    return true;
                }
            }
            false
        };
        let has_arrived = tokio::time::timeout(NOTIFICATION_TIMEOUT, receiving).await.unwrap_or(false);
        if has_arrived {
            return Ok(Notified::After(sent.elapsed()));
        }
        // Stops listening, because the session may belong to a pooler, which lends it to other clients next.
        listener.batch_execute(&format!("unlisten \"{channel}\"")).await.map_err(failed)?;
        Ok(Notified::Never)
    }
}

/// Judges the difference of the clocks. `ahead`: the seconds by which the server's clock seemed to be ahead of this
/// program's clock. `round_trip`: the time that the server's answer took.
fn judge_clock(ahead: f64, round_trip: Duration) -> Finding {
    if ahead.abs() - round_trip.as_secs_f64() / 2.0 <= LARGEST_CLOCK_DIFFERENCE.as_secs_f64() {
        return ok("clock", format!("the server's clock is within {LARGEST_CLOCK_DIFFERENCE:?} of this machine's"));
    }
    let how = if ahead > 0.0 { "ahead of" } else { "behind" };
    let finding = format!("the server's clock is {:.1} s {how} this machine's", ahead.abs());
    note(
        "clock",
        finding,
        "jobs follow the database's clock alone, but the times in logs will differ; set both clocks by NTP",
    )
}

fn read(row: &Row) -> Result<Finding> {
    let failed = |error| Error::database("read a finding", error);
    let state = match row.try_get("state").map_err(failed)? {
        "ok" => Verdict::Ok,
        "note" => Verdict::Note,
        _ => Verdict::Bad,
    };
    Ok(Finding {
        check: row.try_get("check").map_err(failed)?,
        state,
        finding: row.try_get("finding").map_err(failed)?,
        advice: row.try_get("advice").map_err(failed)?,
    })
}

fn ok(check: &str, finding: impl Into<String>) -> Finding {
    Finding { check: check.into(), state: Verdict::Ok, finding: finding.into(), advice: None }
}

fn note(check: &str, finding: impl Into<String>, advice: &str) -> Finding {
    Finding { check: check.into(), state: Verdict::Note, finding: finding.into(), advice: Some(advice.into()) }
}

fn bad(check: &str, finding: impl Into<String>, advice: &str) -> Finding {
    Finding { check: check.into(), state: Verdict::Bad, finding: finding.into(), advice: Some(advice.into()) }
}

/// Returns the seconds from the first time to the second: a negative number if the second time is earlier.
fn seconds_between(first: SystemTime, second: SystemTime) -> f64 {
    second.duration_since(first).map_or_else(|error| -error.duration().as_secs_f64(), |ahead| ahead.as_secs_f64())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "bad",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_a_second_are_noted() {
        let quick = Duration::from_millis(2);
        assert_eq!(judge_clock(0.9, quick).state, Verdict::Ok);
        assert_eq!(judge_clock(2.0, Duration::from_secs(3)).state, Verdict::Ok, "the answer may have been on its way");
        assert!(judge_clock(90.0, quick).finding.contains("90.0 s ahead of"));
        let epoch = SystemTime::UNIX_EPOCH;
        let behind = seconds_between(epoch + Duration::from_secs(5), epoch);
        let found = judge_clock(behind, quick);
        assert!(found.state == Verdict::Note && found.finding.contains("5.0 s behind"), "{found:?}");
    }
}
