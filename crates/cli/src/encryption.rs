//! The options by which a worker of the command encrypts and decrypts what its jobs hold.

use std::env::VarError;
use std::sync::Arc;

use clap::Args;
use reveille::handler::{BoxFuture, Encryption, Middleware, Next};
use reveille::{Context, Outcome};
use serde::Deserialize;

use crate::Failure;

/// The most characters of a key's id.
const LONGEST_ID: usize = 64;

/// The variable that holds the keys. It is never passed on to programs and children, unless it is named.
pub const KEYS: &str = "REVEILLE_ENCRYPTION_KEYS";

/// The middleware of a worker without keys. It refuses encrypted payloads: to a program, they are JSON like any other.
pub struct RefuseEncrypted;

#[derive(Args)]
#[command(next_help_heading = "Encryption")]
pub struct EncryptionOptions {
    /// A file with the keys by which payloads are decrypted, and results, progress and errors encrypted. Each key is
    /// written as id:key, with 32 bytes in base64; the first one encrypts. Default: the variable
    /// REVEILLE_ENCRYPTION_KEYS. Without keys, nothing is encrypted, and encrypted payloads are refused.
    #[arg(long, env = "REVEILLE_ENCRYPTION_KEYS_FILE", hide_env_values = true, value_name = "PATH")]
    encryption_keys_file: Option<String>,
    /// Encrypt and decrypt only jobs of this kind. May be repeated. Default: jobs of all kinds.
    #[arg(long = "encrypt-kind", value_name = "KIND")]
    encrypt_kinds: Vec<String>,
    /// Accept payloads in plain text, too: while jobs that were enqueued before the encryption are worked off.
    #[arg(long)]
    accept_plain_text: bool,
}

impl EncryptionOptions {
    /// Returns the middleware; `None` without keys.
    pub fn encryption(&self) -> Result<Option<Arc<Encryption>>, Failure> {
        let variable = match std::env::var(KEYS) {
            Err(VarError::NotUnicode(_)) => return Err(format!("the keys in {KEYS} are not UTF-8").into()),
            variable => variable.unwrap_or_default(),
        };
        let path = self.encryption_keys_file.as_deref().filter(|path| !path.is_empty());
        let keys = match path {
            Some(_) if !variable.is_empty() => {
                return Err(format!("the encryption keys come from a file or from {KEYS}, not from both").into());
            }
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read the encryption keys in {path}: {error}"))?,
            None if variable.is_empty() && (self.accept_plain_text || !self.encrypt_kinds.is_empty()) => {
                return Err(format!("there are no encryption keys; set {KEYS}, or name a file").into());
            }
            None if variable.is_empty() => return Ok(None),
            None => variable,
        };
        let mut encryption = Encryption::parse(&keys)?;
        if !self.encrypt_kinds.is_empty() {
            encryption = encryption.only(&self.encrypt_kinds);
        }
        if self.accept_plain_text {
            encryption = encryption.accept_plain_text();
        }
        Ok(Some(Arc::new(encryption)))
    }
}

impl Middleware for RefuseEncrypted {
    fn work<'a>(&'a self, context: Context, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let payload = std::str::from_utf8(context.job().payload.as_bytes()).unwrap_or_default();
        let Some(key) = key_of(payload) else { return next.run(context) };
        let error = format!(
            "the payload is encrypted with the key {key:?}, and this worker has no keys: set {KEYS}, or name a file"
        );
        Box::pin(std::future::ready(Outcome::Undecodable(error)))
    }
}

/// Returns the id of the key with which a stored value or error is encrypted; `None` if it is plain text.
pub fn key_of(stored: &str) -> Option<String> {
    /// See `docs/reference/encryption.md`.
    #[derive(Deserialize)]
    struct Envelope {
        #[serde(rename = "reveille_encrypted")]
        _version: u64,
        key: String,
    }
    // Serde would also read the members from an array. Nearly all plain text ends at the second condition, which is
    // cheaper than reading JSON.
    let may_be = stored.trim_start().starts_with('{') && stored.contains("\"reveille_encrypted\"");
    let envelope: Envelope = may_be.then(|| serde_json::from_str(stored).ok()).flatten()?;
    Some(envelope.key.chars().take(LONGEST_ID).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_with_a_version_and_a_key_is_encrypted() {
        for (stored, key) in [
            (r#"{"key": "a", "nonce": "AAEC", "reveille_encrypted": 1}"#, Some("a")),
            (r#"{"key": "a", "reveille_encrypted": "1"}"#, None),
            (r#"[1, "a", "reveille_encrypted"]"#, None),
            (r#"{"in": {"key": "a", "reveille_encrypted": 1}}"#, None),
            (r#"{"key": "a"}"#, None),
            ("no luck with \"reveille_encrypted\"", None),
        ] {
            assert_eq!(key_of(stored).as_deref(), key, "{stored}");
        }
    }
}
