//! Encrypted values and errors. The dashboard has no keys: it shows them as they are stored, and says so.

use serde::Deserialize;

/// The most characters of a key's id.
const LONGEST_ID: usize = 64;

/// The members of an encrypted value that are no ciphertext, as `docs/reference/encryption.md` has them.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "reveille_encrypted")]
    _version: u64,
    key: String,
}

/// Returns the id of the key with which a stored value or error is encrypted; `None` if it is plain text.
pub fn key(stored: &str) -> Option<String> {
    // Serde would also read the members from an array.
    let envelope: Envelope = serde_json::from_str(stored).ok().filter(|_| stored.trim_start().starts_with('{'))?;
    Some(envelope.key.chars().take(LONGEST_ID).collect())
}

/// Returns an error for a list: an encrypted one in words, and any other one unchanged.
pub fn in_words(error: String) -> String {
    match key(&error) {
        Some(key) => format!("(encrypted with the key {key})"),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_value_is_told_by_its_members() {
        let stored = r#" {"reveille_encrypted": 1, "key": "2026-11", "nonce": "AAEC", "ciphertext": "5eB6"}"#;
        assert_eq!(key(stored).as_deref(), Some("2026-11"));
        assert_eq!(in_words(stored.to_owned()), "(encrypted with the key 2026-11)");
        for plain in
            ["no luck", "7", "", r#"{"key": "a"}"#, r#"[1, "a"]"#, r#"{"reveille_encrypted": "1", "key": "a"}"#]
        {
            assert_eq!((key(plain), in_words(plain.to_owned())), (None, plain.to_owned()));
        }
    }
}
