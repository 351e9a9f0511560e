//! A middleware that encrypts payloads, results, progress, steps and errors, so that the database holds no plain text
//! of them.
//!
//! `key` is a key with its id, and `envelope` is the stored form.

use std::collections::BTreeSet;
use std::error::Error as StdError;

use futures::FutureExt;

use crate::error::{Error, Result};
use crate::handler::extract::Context;
use crate::handler::middleware::{BoxFuture, Middleware, Next};
use crate::handler::output::Output;
use crate::job::linked::WORKFLOW_KIND;
use crate::job::outcome::Outcome;
use crate::job::{NewJob, Payload, ReservedJob};

mod envelope;
mod key;

use envelope::{Envelope, NONCE_BYTES};
pub use key::EncryptionKey;

/// A middleware that encrypts the payload, the result, the progress, the steps and the errors of jobs.
///
/// A program that enqueues adds it to its [`Enqueuer`](crate::enqueue::Enqueuer), and a worker to its builder. Add it
/// first, so that it is the nearest to the database. It encrypts with its first key, and decrypts with any of its keys.
/// The guide has the stored form, what stays readable, and how to change keys:
/// [encryption](crate::guide::features::encryption).
///
/// A job whose payload cannot be decrypted becomes a dead job, for the reason `undecodable`, before the handler runs.
/// Nothing is lost: once the worker has the key, revive the job.
///
/// ```
/// use reveille::handler::Encryption;
/// use reveille::enqueue::Enqueuer;
/// # use std::sync::Arc;
///
/// # fn example(keys: &str) -> reveille::Result<()> {
/// // `keys` is, for example, the value of an environment variable: "2026-11:kWYy… 2025-03:AgIC…".
/// let encryption = Arc::new(Encryption::parse(keys)?.only(["send_welcome", "charge"]));
/// let enqueuer = Enqueuer::new().middleware(Arc::clone(&encryption));
/// # drop(enqueuer);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Encryption {
    /// At least one key. The first one encrypts.
    keys: Vec<EncryptionKey>,
    /// The kinds to encrypt; `None`: all.
    kinds: Option<BTreeSet<String>>,
    accepts_plain: bool,
}

/// The fields of a job that are encrypted. Each ciphertext belongs to one field and to one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EncryptedField {
    /// The payload.
    Payload,
    /// The result.
    Result,
    /// The progress.
    Progress,
    /// The text of an error.
    Error,
    /// The value of a step.
    Step,
}

impl EncryptedField {
    /// The field's name, which is authenticated with each ciphertext: `payload`, `result`, `progress`, `error` or
    /// `step`.
    pub fn name(self) -> &'static str {
        match self {
            EncryptedField::Payload => "payload",
            EncryptedField::Result => "result",
            EncryptedField::Progress => "progress",
            EncryptedField::Error => "error",
            EncryptedField::Step => "step",
        }
    }
}

impl Encryption {
    /// Makes a middleware that encrypts the jobs of all kinds. The first key encrypts, and all keys decrypt.
    ///
    /// # Errors
    /// Invalid if there is no key, or if two keys have the same id.
    pub fn new(keys: impl IntoIterator<Item = EncryptionKey>) -> Result<Encryption> {
        let keys: Vec<EncryptionKey> = keys.into_iter().collect();
        if keys.is_empty() {
            return Err(Error::invalid("encryption needs at least one key, written as `id:key`"));
        }
        for (place, key) in keys.iter().enumerate() {
            if keys[..place].iter().any(|earlier| earlier.id() == key.id()) {
                let id = key.id();
                return Err(Error::invalid(format!("two encryption keys have the id {id:?}; give each its own id")));
            }
        }
        Ok(Encryption { keys, kinds: None, accepts_plain: false })
    }

    /// Reads the keys from a text, such as the value of an environment variable or a file: keys in the form `id:key`,
    /// with blanks or ends of lines between them. A line that begins with `#` is a comment.
    ///
    /// # Errors
    /// As in [`new`](Encryption::new), or if a key cannot be read. No error shows any part of a key.
    pub fn parse(keys: &str) -> Result<Encryption> {
        let lines = keys.lines().filter(|line| !line.trim_start().starts_with('#'));
        let read = |(place, key): (usize, &str)| {
            let key: Result<EncryptionKey> = key.parse();
            key.map_err(|error| Error::invalid(format!("encryption key {}: {error}", place + 1)))
        };
        let keys: Result<Vec<EncryptionKey>> = lines.flat_map(str::split_whitespace).enumerate().map(read).collect();
        Encryption::new(keys?)
    }

    /// Encrypts only the jobs of these kinds, and jobs that start workflows, since these hold payloads of other kinds.
    /// The jobs of other kinds pass unchanged.
    #[must_use]
    pub fn only<K: Into<String>>(self, kinds: impl IntoIterator<Item = K>) -> Encryption {
        Encryption { kinds: Some(kinds.into_iter().map(Into::into).collect()), ..self }
    }

    /// Accepts payloads in plain text, too, and results that later jobs read: while the jobs that were enqueued before
    /// the encryption are worked off.
    ///
    /// Anyone who can write to the database can then make jobs that your handlers take for your own.
    #[must_use]
    pub fn accept_plain_text(self) -> Encryption {
        Encryption { accepts_plain: true, ..self }
    }

    /// Encrypts a value for a field of a job of this kind: for code that no middleware reaches, such as the payload of
    /// a schedule that an administrator adds.
    ///
    /// # Errors
    /// Invalid if the value is JSON that Postgres could not store either. Fails if the system yields no random numbers.
    pub fn seal(&self, kind: &str, field: EncryptedField, plain: &Payload) -> Result<Payload> {
        Payload::parse(&String::from_utf8_lossy(plain.as_bytes()))?;
        self.envelope(kind, field, plain.as_bytes())?.to_json()
    }

    /// Decrypts a stored value of a job of this kind: for code that reads results or progress.
    ///
    /// # Errors
    /// Invalid if the value cannot be decrypted: its key is missing here, or the value was changed, or comes from
    /// another kind or field. Also if the value is plain text, unless plain text is accepted.
    pub fn open(&self, kind: &str, field: EncryptedField, stored: &Payload) -> Result<Payload> {
        let Some(envelope) = Envelope::read(stored.as_bytes(), field)? else {
            if self.accepts_plain || !self.covers(kind) {
                return Ok(stored.clone());
            }
            return Err(Error::invalid(format!("the {} is not encrypted, and plain text is refused", field.name())));
        };
        let plain = envelope.open(&self.keys, kind, field)?;
        let plain = String::from_utf8(plain).map_err(|_| not_json(field))?;
        Payload::parse(&plain).map_err(|_| not_json(field))
    }

    /// Decrypts the text of an error of a job of this kind. A text that is not encrypted is returned unchanged: the
    /// errors of lost attempts, and of payloads that cannot be decrypted, are plain text.
    ///
    /// # Errors
    /// As in [`open`](Encryption::open).
    pub fn open_error(&self, kind: &str, stored: &str) -> Result<String> {
        let field = EncryptedField::Error;
        let Some(envelope) = Envelope::read(stored.as_bytes(), field)? else { return Ok(stored.to_owned()) };
        let plain = envelope.open(&self.keys, kind, field)?;
        Ok(String::from_utf8_lossy(&plain).into_owned())
    }

    /// The payload of a job that starts a workflow has the payloads of other kinds in it, so this kind is covered, too.
    fn covers(&self, kind: &str) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind) || kind == WORKFLOW_KIND)
    }

    fn envelope(&self, kind: &str, field: EncryptedField, plain: &[u8]) -> Result<Envelope> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)
            .map_err(|error| Error::broken(format!("the system yields no random numbers to encrypt with: {error}")))?;
        Envelope::seal(&self.keys[0], kind, field, nonce, plain)
    }

    fn seal_payload(&self, job: &mut NewJob) -> Result<()> {
        if self.covers(&job.kind) {
            job.payload = self.seal(&job.kind, EncryptedField::Payload, &job.payload)?;
        }
        Ok(())
    }

    /// Returns true if this middleware itself has written the error, since the payload cannot be decrypted. Such an
    /// error holds nothing of the plain text, and stays readable for the people who look for the key.
    fn is_own(&self, job: &ReservedJob, error: &str) -> bool {
        let payload = self.open(&job.kind, EncryptedField::Payload, &job.payload);
        payload.is_err_and(|own| own.to_string() == error)
    }
}

fn not_json(field: EncryptedField) -> Error {
    Error::invalid(format!("the {} was encrypted, but is not JSON that can be stored", field.name()))
}

impl Middleware for Encryption {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn StdError + Send + Sync>> {
        Ok(self.seal_payload(job)?)
    }

    fn declare(&self, job: &mut NewJob) -> Result<(), Box<dyn StdError + Send + Sync>> {
        Ok(self.seal_payload(job)?)
    }

    fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let job = context.job();
        if !self.covers(&job.kind) {
            return next.run(context);
        }
        match self.open(&job.kind, EncryptedField::Payload, &job.payload) {
            Ok(payload) => next.run(context.with_payload(payload)),
            Err(error) => std::future::ready(Outcome::Undecodable(error.to_string())).boxed(),
        }
    }

    fn store(&self, job: &ReservedJob, output: &mut Output) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let kind = &*job.kind;
        match output {
            _ if !self.covers(kind) => {}
            Output::Result(result) => *result = self.seal(kind, EncryptedField::Result, result)?,
            Output::Progress(progress) => *progress = self.seal(kind, EncryptedField::Progress, progress)?,
            Output::Step(value) => *value = self.seal(kind, EncryptedField::Step, value)?,
            Output::Error(error) if self.is_own(job, error) => {}
            Output::Error(error) => {
                *error = self.envelope(kind, EncryptedField::Error, error.as_bytes())?.to_error()?
            }
        }
        Ok(())
    }

    fn load(&self, job: &ReservedJob, output: &mut Output) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let kind = &*job.kind;
        match output {
            _ if !self.covers(kind) => {}
            Output::Step(value) => *value = self.open(kind, EncryptedField::Step, value)?,
            Output::Result(result) => *result = self.open(kind, EncryptedField::Result, result)?,
            Output::Error(error) => *error = self.open_error(kind, error)?,
            Output::Progress(_) => {}
        }
        Ok(())
    }
}
