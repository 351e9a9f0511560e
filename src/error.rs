//! The type of all errors, with predicates.

use std::fmt;

use tokio_postgres::error::SqlState;

/// The result of a call into this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what failed, for which thing, and what to do.
///
/// Match on an error by its predicates ([`is_invalid`](Error::is_invalid), [`is_unavailable`](Error::is_unavailable),
/// …). The text of an error is one line for a person. It holds no password and no payload.
pub struct Error {
    kind: Kind,
    message: String,
    code: Option<SqlState>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Invalid,
    Unavailable,
    SchemaMissing,
    SchemaMismatch,
    Denied,
    Lost,
    Refused,
    Repeated,
    ListenUnsupported,
    Broken,
    Database,
}

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), code: None, source: None }
    }

    /// The input can never work: a bad name, option, payload or address.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, message)
    }

    /// The store cannot be reached, or cannot answer now. Trying again may help.
    pub fn unavailable(message: impl Into<String>) -> Error {
        Error::new(Kind::Unavailable, message)
    }

    /// The store lacks Reveille's schema.
    pub fn schema_missing(message: impl Into<String>) -> Error {
        Error::new(Kind::SchemaMissing, message)
    }

    /// The store's schema is older or newer than this program can work with.
    pub fn schema_mismatch(message: impl Into<String>) -> Error {
        Error::new(Kind::SchemaMismatch, message)
    }

    /// The store refuses the user, the password or the access.
    pub fn denied(message: impl Into<String>) -> Error {
        Error::new(Kind::Denied, message)
    }

    /// The worker's reservation of the job no longer stands.
    pub fn lost(message: impl Into<String>) -> Error {
        Error::new(Kind::Lost, message)
    }

    /// The request was acted on before.
    pub(crate) fn repeated(message: impl Into<String>) -> Error {
        Error::new(Kind::Repeated, message)
    }

    /// Makes the error for a job that a middleware has refused. If the middleware returned an [`Error`] of this crate,
    /// returns that error unchanged.
    pub(crate) fn refused(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => {
                let message = format!("cannot enqueue: a middleware refused the job: {error:#}");
                Error { source: Some(error), ..Error::new(Kind::Refused, message) }
            }
        }
    }

    /// The store sends no notifications, so workers have to poll.
    pub fn listen_unsupported(message: impl Into<String>) -> Error {
        Error::new(Kind::ListenUnsupported, message)
    }

    /// A part of a worker has panicked, or has ended before the shutdown.
    pub(crate) fn broken(message: impl Into<String>) -> Error {
        Error::new(Kind::Broken, message)
    }

    /// Returns this error with another error as its source.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let source = source.into();
        let code = || source.downcast_ref::<tokio_postgres::Error>()?.code().cloned();
        Error { code: self.code.or_else(code), source: Some(source), ..self }
    }

    /// The server or the connection to the server has failed. `what` says what the program cannot do: "cannot {what}".
    pub(crate) fn database(what: &str, error: tokio_postgres::Error) -> Error {
        Error::failed(what, Failure::of(&error)).with_source(error)
    }

    /// A client has failed as `failure` says.
    pub(crate) fn failed(what: &str, failure: Failure) -> Error {
        let Failure { kind, code, reason, is_tls, was_connected } = failure;
        let is = |codes: &[&str]| code.as_ref().is_some_and(|code| codes.contains(&code.code()));
        let message = match kind {
            Kind::SchemaMissing => {
                format!("cannot {what}: {reason}: the schema is missing or not current; run `reveille migrate`")
            }
            Kind::Denied if !is_tls => {
                format!("cannot {what}: {reason}; check the user, the password and the grants")
            }
            // A server may refuse writes by its error code, or by tokio-postgres' message for an unmet
            // `target_session_attrs`.
            Kind::Unavailable if is(&[READ_ONLY]) || reason.contains("not allow writes") => {
                format!(
                    "cannot {what}: {reason}; is the server a standby? connect to the primary, \
                        or try again after a fail-over"
                )
            }
            Kind::Unavailable if is(&ENDS_THE_SESSION) => {
                format!("cannot {what}: the server ended this connection: {reason}")
            }
            Kind::Unavailable if code.is_some() => format!("cannot {what}: the server says: {reason}"),
            Kind::Unavailable if was_connected => format!("cannot {what}: the connection was lost: {reason}"),
            Kind::Unavailable => format!("cannot {what}: {reason}; is the server running and reachable?"),
            _ if is_tls => format!("cannot {what}: {}", tls_advice(&reason)),
            _ => format!("cannot {what}: {reason}"),
        };
        Error { code, ..Error::new(kind, message) }
    }

    /// The caller's input can never work, so trying again does not help.
    pub fn is_invalid(&self) -> bool {
        self.kind == Kind::Invalid
    }

    /// The server cannot be reached, is starting or stopping, or has no free connection. Trying again may help.
    pub fn is_unavailable(&self) -> bool {
        self.kind == Kind::Unavailable
    }

    /// The database lacks Reveille's schema. Migrate it first.
    pub fn is_schema_missing(&self) -> bool {
        self.kind == Kind::SchemaMissing
    }

    /// The database's schema is older or newer than this program supports.
    pub fn is_schema_mismatch(&self) -> bool {
        self.kind == Kind::SchemaMismatch
    }

    /// The server refused the user, the password or the access.
    pub fn is_denied(&self) -> bool {
        self.kind == Kind::Denied
    }

    /// This worker's reservation of the job no longer stands. The job may have ended, or another worker may run it.
    pub fn is_lost(&self) -> bool {
        self.kind == Kind::Lost
    }

    /// A middleware has refused to enqueue a job. The middleware's error is the source.
    pub fn is_refused(&self) -> bool {
        self.kind == Kind::Refused
    }

    /// The request was acted on before, so nothing was changed now. See [`Admin::once`](crate::admin::Admin::once).
    pub fn is_repeated(&self) -> bool {
        self.kind == Kind::Repeated
    }

    /// The store sends no notifications, or a transaction pooler does not pass them on.
    pub fn is_listen_unsupported(&self) -> bool {
        self.kind == Kind::ListenUnsupported
    }

    /// True if the server gave the statement up because of other sessions or for its time: a deadlock, a conflict
    /// between transactions, or a timeout. The same statement may succeed, and a smaller one is more likely to.
    pub(crate) fn is_conflict(&self) -> bool {
        self.is_locked() || self.code().is_some_and(|code| matches!(code.code(), "40001" | "40P01" | "57014"))
    }

    /// The server refused a row because of this constraint or unique index.
    pub(crate) fn is_refused_by(&self, constraint: &str) -> bool {
        let error = self.source.as_ref().and_then(|source| source.downcast_ref::<tokio_postgres::Error>());
        error.and_then(tokio_postgres::Error::as_db_error).is_some_and(|error| error.constraint() == Some(constraint))
    }

    /// Another session holds a lock, and the statement's wait for that lock timed out.
    pub(crate) fn is_locked(&self) -> bool {
        self.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// The server refuses a row, or cannot read the row. Trying again does not help, but leaving out the row does.
    ///
    /// True for all invalid input, and for all errors of the server except errors about the connection, rights, the
    /// schema, resources, or concurrent sessions.
    pub(crate) fn is_about_data(&self) -> bool {
        const OTHER_CLASSES: [&str; 13] =
            ["08", "0A", "25", "26", "28", "34", "3D", "3F", "40", "42", "53", "55", "57"];
        let is_other = |code: &SqlState| OTHER_CLASSES.iter().any(|class| code.code().starts_with(class));
        self.is_invalid() || self.code().is_some_and(|code| !is_other(code))
    }

    /// A part of a worker has panicked, or has ended before the shutdown. The worker has ended for this reason. This is
    /// a fault of the program.
    pub fn is_broken(&self) -> bool {
        self.kind == Kind::Broken
    }

    /// The server's error code (SQLSTATE), if the server reported one, by whichever client.
    pub fn code(&self) -> Option<&SqlState> {
        self.code.as_ref()
    }
}

/// The code of a server that refuses writes.
const READ_ONLY: &str = "25006";
/// The codes with which a server ends this session: by a command, after a crash, or because the session was idle. Other
/// sessions may go on.
const ENDS_THE_SESSION: [&str; 4] = ["57P01", "57P02", "57P04", "57P05"];

/// What a client reports about the failure of a statement or a connection.
pub(crate) struct Failure {
    kind: Kind,
    /// The server's error code, if the server reported one.
    code: Option<SqlState>,
    /// The server's message, detail and hint; or the innermost cause.
    reason: String,
    /// True if TLS itself failed, and not the network below TLS.
    is_tls: bool,
    /// True if the failure happened in a session, and not while connecting.
    was_connected: bool,
}

impl Failure {
    /// The server has refused a statement, or has ended the session.
    pub(crate) fn of_server(code: SqlState, message: &str, detail: Option<&str>, hint: Option<&str>) -> Failure {
        let mut reason = message.to_owned();
        // The detail of an error about data is left out, because it quotes the row, including the payload.
        if let Some(detail) = detail.filter(|_| !matches!(code.code().get(..2), Some("22" | "23"))) {
            reason.push_str(": ");
            reason.push_str(detail);
        }
        if let Some(hint) = hint {
            reason.push_str(" (");
            reason.push_str(hint);
            reason.push(')');
        }
        let kind = kind_of(&code);
        Failure { kind, code: Some(code), reason, is_tls: false, was_connected: true }
    }

    /// The client has failed, without an answer of the server. If `is_away`, the server cannot be reached.
    pub(crate) fn of_client(error: &dyn std::error::Error, is_away: bool) -> Failure {
        let kind = if is_away { Kind::Unavailable } else { Kind::Database };
        Failure { kind, code: None, reason: innermost(error), is_tls: false, was_connected: true }
    }

    /// The failure happened while connecting.
    pub(crate) fn while_connecting(self) -> Failure {
        Failure { was_connected: false, ..self }
    }

    /// TLS has failed.
    pub(crate) fn of_tls(error: &dyn std::error::Error) -> Failure {
        Failure { kind: Kind::Denied, is_tls: true, ..Failure::of_client(error, false) }
    }

    fn of(error: &tokio_postgres::Error) -> Failure {
        if is_tls(error) {
            return Failure::of_tls(error);
        }
        if let Some(db) = error.as_db_error() {
            return Failure::of_server(db.code().clone(), db.message(), db.detail(), db.hint());
        }
        // An error without a code is not from the server: the connection failed, or a value could not be converted.
        let failed = std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>());
        let is_away = failed || error.is_closed() || error.to_string().starts_with("timeout");
        let failure = Failure::of_client(error, is_away);
        if was_connected(error) { failure } else { failure.while_connecting() }
    }
}

/// True if the error happened in a session, and not while connecting.
fn was_connected(error: &tokio_postgres::Error) -> bool {
    let text = error.to_string();
    !text.starts_with("error connecting to server") && !text.starts_with("timeout")
}

/// True if TLS itself failed, and not the network below TLS.
fn is_tls(error: &tokio_postgres::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let cut_off = [BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof];
    error.to_string().contains("TLS handshake") && !cause.is_some_and(|cause| cut_off.contains(&cause.kind()))
}

/// The reason why TLS failed, and what to check.
fn tls_advice(reason: &str) -> String {
    let is = |word: &str| reason.contains(word);
    // rustls reports `BadSignature` if a trusted authority has the same name as the issuer, but another key.
    if is("UnknownIssuer") || is("BadSignature") {
        return format!("{reason}: no trusted authority has issued the server's certificate; check sslrootcert");
    }
    let advice = if is("Revoked") || is("Revocation") {
        "get a new certificate for the server, or a newer list of revoked ones if sslcrl is out of date"
    } else if is("valid for name") {
        "check the host's name, or use sslmode=verify-ca"
    } else if is("not support TLS") {
        "turn on ssl on the server, or use sslmode=prefer"
    } else {
        "check sslmode and sslrootcert"
    };
    format!("{reason}; {advice}")
}

fn kind_of(code: &SqlState) -> Kind {
    match code.code() {
        "3F000" | "42P01" | "42883" | "42703" => Kind::SchemaMissing,
        "28000" | "28P01" | "42501" => Kind::Denied,
        code if code.starts_with("08") || code.starts_with("57P") || matches!(code, "53300" | READ_ONLY) => {
            Kind::Unavailable
        }
        code if code.starts_with("22") || code.starts_with("23") => Kind::Invalid,
        _ => Kind::Database,
    }
}

/// Returns the text of the innermost cause.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Returns the text on one line, with its control characters escaped, since a terminal would obey them. They can come
/// from input that the server quotes, or from a middleware's error.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' => plain.push(' '),
            c if is_unprintable(c) => plain.extend(c.escape_unicode()),
            c => plain.push(c),
        }
    }
    plain
}

/// True for a control character, and for a character that changes the direction of writing.
fn is_unprintable(c: char) -> bool {
    char::is_control(c)
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = &self.message;
        if message.contains(is_unprintable) { f.write_str(&plain(message)) } else { f.write_str(message) }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.kind, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
