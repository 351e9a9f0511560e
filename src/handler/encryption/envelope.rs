//! The stored form of encrypted values: a JSON object, which `docs/reference/encryption.md` describes byte by byte.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::{Aead, Payload as Message};
use serde::{Deserialize, Serialize};

use super::EncryptedField;
use super::key::EncryptionKey;
use crate::error::{Error, Result};
use crate::job::Payload;

/// The version of the format.
const VERSION: u64 = 1;
const ALGORITHM: &str = "XChaCha20-Poly1305";
/// The beginning of the associated data.
const LABEL: &[u8] = b"reveille-encryption-1";
/// The number of bytes of a nonce. Nonces are random. After 2^80 values of one key, two of its nonces are the same with
/// a probability of 2^-33, by the birthday bound. With 96 bits, that would be so after 2^32 values.
pub(super) const NONCE_BYTES: usize = 24;

/// An encrypted value.
#[derive(Serialize, Deserialize)]
pub(super) struct Envelope {
    #[serde(rename = "reveille_encrypted")]
    version: u64,
    algorithm: String,
    key: String,
    nonce: String,
    ciphertext: String,
}

/// The only member that all versions have.
#[derive(Deserialize)]
struct Version {
    #[serde(rename = "reveille_encrypted")]
    version: u64,
}

impl Envelope {
    /// Encrypts a value.
    pub(super) fn seal(
        key: &EncryptionKey,
        kind: &str,
        field: EncryptedField,
        nonce: [u8; NONCE_BYTES],
        plain: &[u8],
    ) -> Result<Envelope> {
        let aad = associated_data(kind, field);
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), Message { msg: plain, aad: &aad });
        let ciphertext = sealed.map_err(|_| Error::invalid(format!("the {} is too long to encrypt", field.name())))?;
        Ok(Envelope {
            version: VERSION,
            algorithm: ALGORITHM.into(),
            key: key.id().into(),
            nonce: BASE64.encode(nonce),
            ciphertext: BASE64.encode(ciphertext),
        })
    }

    /// Reads an envelope. Returns `None` if the JSON is none.
    pub(super) fn read(json: &[u8], field: EncryptedField) -> Result<Option<Envelope>> {
        // Serde would also read the members from an array.
        let is_object = json.trim_ascii_start().starts_with(b"{");
        let Some(Version { version }) = serde_json::from_slice(json).ok().filter(|_| is_object) else {
            return Ok(None);
        };
        let unreadable =
            |why: String| Error::invalid(format!("the {} is encrypted in a form that {why}", field.name()));
        if version != VERSION {
            return Err(unreadable(format!("this program does not know: version {version}")));
        }
        let envelope: Envelope =
            serde_json::from_slice(json).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
        if envelope.algorithm != ALGORITHM {
            return Err(unreadable(format!("this program does not know: algorithm {:?}", envelope.algorithm)));
        }
        Ok(Some(envelope))
    }

    /// Decrypts the value with the key that the envelope names.
    pub(super) fn open(&self, keys: &[EncryptionKey], kind: &str, field: EncryptedField) -> Result<Vec<u8>> {
        let (name, id) = (field.name(), &self.key);
        let Some(key) = keys.iter().find(|key| key.id() == id) else {
            return Err(Error::invalid(format!(
                "the {name} is encrypted with the key {id:?}, which this program lacks"
            )));
        };
        let nonce = BASE64.decode(&self.nonce).ok().and_then(|nonce| <[u8; NONCE_BYTES]>::try_from(nonce).ok());
        let opened = nonce.zip(BASE64.decode(&self.ciphertext).ok()).and_then(|(nonce, ciphertext)| {
            let message = Message { msg: &ciphertext, aad: &associated_data(kind, field) };
            key.cipher.decrypt(&XNonce::from(nonce), message).ok()
        });
        opened.ok_or_else(|| {
            Error::invalid(format!(
                "the {name} cannot be decrypted with the key {id:?}: either this program has another key of that id, \
                 or the {name} was changed, or comes from another kind or field"
            ))
        })
    }

    pub(super) fn to_json(&self) -> Result<Payload> {
        Payload::encode(self)
    }

    /// Returns the JSON for the text of an error, with a line break before the nonce. So all errors of a key have the
    /// same first line, by which dead jobs are grouped.
    pub(super) fn to_error(&self) -> Result<String> {
        let json = self.to_json()?;
        Ok(String::from_utf8_lossy(json.as_bytes()).replacen(",\"nonce\"", ",\n\"nonce\"", 1))
    }
}

/// Returns the data that is authenticated with a value: the label, the field and the kind, with a zero byte between
/// them. A kind holds no zero byte.
fn associated_data(kind: &str, field: EncryptedField) -> Vec<u8> {
    [LABEL, field.name().as_bytes(), kind.as_bytes()].join(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of `docs/reference/encryption.md`. They were computed by another program.
    const VECTOR: &str = concat!(
        r#"{"reveille_encrypted":1,"algorithm":"XChaCha20-Poly1305","key":"2026-11","#,
        r#""nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYX","#,
        r#""ciphertext":"5eB6DPWg0sdXZhz5tsHvIMCw92S7TQ8IJWazb1c="}"#
    );
    const PLAIN: &[u8] = br#"{"user_id":7}"#;
    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn keys() -> [EncryptionKey; 1] {
        [format!("2026-11:{KEY}").parse().unwrap()]
    }

    fn sealed(kind: &str, field: EncryptedField, plain: &[u8]) -> Envelope {
        Envelope::seal(&keys()[0], kind, field, std::array::from_fn(|place| place as u8), plain).unwrap()
    }

    #[test]
    fn the_stored_form_never_changes() {
        let payload = sealed("send_welcome", EncryptedField::Payload, PLAIN);
        assert_eq!(payload.to_json().unwrap().as_bytes(), VECTOR.as_bytes());
        let read = Envelope::read(VECTOR.as_bytes(), EncryptedField::Payload).unwrap().unwrap();
        assert_eq!(read.open(&keys(), "send_welcome", EncryptedField::Payload).unwrap(), PLAIN);
    }

    #[test]
    fn the_page_on_the_stored_form_has_the_test_vectors() {
        let page = include_str!("../../../docs/reference/encryption.md");
        let json = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let read = Envelope::read(json.as_bytes(), EncryptedField::Payload).unwrap().unwrap();
        assert_eq!(read.to_json().unwrap().as_bytes(), VECTOR.as_bytes());
        let error = sealed("grüße", EncryptedField::Error, "no luck: 7 €".as_bytes());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let aad = |kind, field| hex(&associated_data(kind, field));
        for part in [
            KEY,
            &aad("send_welcome", EncryptedField::Payload),
            &aad("grüße", EncryptedField::Error),
            &error.ciphertext,
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn all_errors_of_a_key_begin_with_the_same_line() {
        let error = |text: &str| sealed("k", EncryptedField::Error, text.as_bytes()).to_error().unwrap();
        let (one, other) = (error("one"), error("another\nerror"));
        let line = r#"{"reveille_encrypted":1,"algorithm":"XChaCha20-Poly1305","key":"2026-11","#;
        assert_eq!((one.lines().next(), other.lines().next()), (Some(line), Some(line)));
        let read = Envelope::read(other.as_bytes(), EncryptedField::Error).unwrap().unwrap();
        assert_eq!(read.open(&keys(), "k", EncryptedField::Error).unwrap(), b"another\nerror");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let flipped = |text: &str| {
            let mut bytes = BASE64.decode(text).unwrap();
            (0..bytes.len() * 8).map(move |bit| {
                bytes[bit / 8] ^= 1 << (bit % 8);
                let text = BASE64.encode(&bytes);
                bytes[bit / 8] ^= 1 << (bit % 8);
                text
            })
        };
        let read = || Envelope::read(VECTOR.as_bytes(), EncryptedField::Payload).unwrap().unwrap();
        let nonces = flipped(&read().nonce).map(|nonce| Envelope { nonce, ..read() });
        let ciphertexts = flipped(&read().ciphertext).map(|ciphertext| Envelope { ciphertext, ..read() });
        let changed: Vec<Envelope> = nonces.chain(ciphertexts).collect();
        assert_eq!(changed.len(), (24 + 13 + 16) * 8);
        for envelope in changed {
            assert!(envelope.open(&keys(), "send_welcome", EncryptedField::Payload).is_err());
        }
        let cut = BASE64.encode(&BASE64.decode(&read().ciphertext).unwrap()[..15]);
        for ciphertext in [cut, String::new(), "no base64".into()] {
            let envelope = Envelope { ciphertext, ..read() };
            assert!(envelope.open(&keys(), "send_welcome", EncryptedField::Payload).is_err());
        }
    }

    #[test]
    fn a_value_opens_only_for_its_kind_and_its_field() {
        let sealed = Envelope::read(VECTOR.as_bytes(), EncryptedField::Payload).unwrap().unwrap();
        for (kind, field) in [
            ("send_welcom", EncryptedField::Payload),
            ("send_welcome2", EncryptedField::Payload),
            ("", EncryptedField::Payload),
            ("send_welcome", EncryptedField::Result),
            ("send_welcome", EncryptedField::Progress),
            ("send_welcome", EncryptedField::Error),
        ] {
            let error = sealed.open(&keys(), kind, field).unwrap_err().to_string();
            assert!(error.contains("was changed, or comes from another kind or field"), "{error}");
        }
    }

    #[test]
    fn an_unknown_version_or_algorithm_is_named() {
        let read = |from, to| Envelope::read(VECTOR.replace(from, to).as_bytes(), EncryptedField::Payload);
        let error = |from, to| read(from, to).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error(":1,", ":2,").ends_with("does not know: version 2"));
        assert!(error("XChaCha20-", "AES-").ends_with(r#"does not know: algorithm "AES-Poly1305""#));
        assert!(error("nonce", "once").contains("missing field `nonce`"));
        assert!(read("reveille_encrypted", "other").unwrap().is_none());
        assert!(Envelope::read(b"[1]", EncryptedField::Payload).unwrap().is_none());
    }
}
