//! Keys, and the text form in which a program gets them.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The number of bytes of a key.
const BYTES: usize = 32;
/// The most characters of a key's id.
const LONGEST_ID: usize = 64;

/// A key of 32 random bytes, with an id. Each ciphertext names its key by this id.
///
/// The text form is `id:key`, with the key in base64. `openssl rand -base64 32` makes a key. A key that is dropped is
/// overwritten in memory. No error and no debug output shows any part of a key.
///
/// ```
/// use reveille::handler::EncryptionKey;
///
/// let key: EncryptionKey = "2026-11:kWYyDtpHEdLAWVUtZvdhWYEAe6WGvF4PxPsZXd8aHgU=".parse()?;
/// assert_eq!(key.id(), "2026-11");
/// # Ok::<(), reveille::Error>(())
/// ```
#[derive(Clone)]
pub struct EncryptionKey {
    id: String,
    pub(super) cipher: XChaCha20Poly1305,
}

impl EncryptionKey {
    /// Makes a key of its id and its 32 bytes. The bytes must be random: a password is no key.
    ///
    /// # Errors
    /// Invalid unless the id has 1 to 64 characters, each a letter or a digit of ASCII, or one of `.`, `_` and `-`.
    pub fn new(id: impl Into<String>, key: &[u8; 32]) -> Result<EncryptionKey> {
        let id = id.into();
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !(1..=LONGEST_ID).contains(&id.len()) || !id.chars().all(is_allowed) {
            // The error does not show the id: it is the key, if someone has written `key:id`.
            return Err(Error::invalid(format!(
                "the id of an encryption key has 1 to {LONGEST_ID} letters, digits, dots, hyphens and underscores"
            )));
        }
        Ok(EncryptionKey { id, cipher: XChaCha20Poly1305::new(key.into()) })
    }

    /// The key's id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl FromStr for EncryptionKey {
    type Err = Error;

    /// Reads `id:key`.
    fn from_str(text: &str) -> Result<EncryptionKey> {
        let Some((id, key)) = text.split_once(':') else {
            return Err(Error::invalid(format!(
                "an encryption key is written as `id:key`, with {BYTES} bytes in base64 behind the colon"
            )));
        };
        let bytes = Zeroizing::new(BASE64.decode(key).unwrap_or_default());
        match <&[u8; BYTES]>::try_from(bytes.as_slice()) {
            Ok(bytes) => EncryptionKey::new(id, bytes),
            Err(_) => Err(Error::invalid(format!(
                "behind its colon, an encryption key has {BYTES} bytes in base64; \
                 make them by `openssl rand -base64 {BYTES}`"
            ))),
        }
    }
}

impl fmt::Debug for EncryptionKey {
    /// Writes only the id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({:?})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use crate::handler::Encryption;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn keys_are_read_from_a_text_with_comments() {
        let text = format!("# the newest key comes first\n  2026-11:{KEY}\n\n2025:{KEY} a.b_c:{KEY}\n");
        let shown = format!("{:?}", Encryption::parse(&text).unwrap());
        assert!(
            shown.contains(r#"[EncryptionKey("2026-11"), EncryptionKey("2025"), EncryptionKey("a.b_c")]"#),
            "{shown}"
        );
    }

    #[test]
    fn a_key_that_cannot_be_read_is_refused_and_not_shown() {
        let hex = "0a1b2c3d".repeat(8);
        for (text, why) in [
            (String::new(), "at least one key"),
            (KEY.to_owned(), "written as `id:key`"),
            (hex.clone(), "written as `id:key`"),
            (format!("{hex}:new"), "32 bytes in base64"),
            (format!("{KEY}:new"), "32 bytes in base64"),
            (format!("{KEY}:{KEY}"), "letters, digits"),
            (format!(":{KEY}"), "letters, digits"),
            (format!("a/b:{KEY}"), "letters, digits"),
            (format!("{}:{KEY}", "a".repeat(65)), "letters, digits"),
            (format!("a:{}", &KEY[1..]), "32 bytes in base64"),
            (format!("a:{}", KEY.replace('A', "?")), "32 bytes in base64"),
            (format!("a:{KEY}{KEY}"), "32 bytes in base64"),
            (format!("a:{KEY} b:AAAA"), "encryption key 2: behind its colon"),
            (format!("a:{KEY} a:{KEY}"), r#"two encryption keys have the id "a""#),
        ] {
            let error = Encryption::parse(&text).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(error.is_invalid() && shown.contains(why), "{text}: {shown}");
            assert!(!shown.contains(&KEY[8..16]) && !shown.contains(&hex[8..16]), "{shown}");
        }
    }
}
