//! Signatures of forms: proof that this dashboard made a form for this visitor, within the last two days.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const SECONDS_A_DAY: u64 = 86_400;

/// Signs forms (HMAC-SHA-256, RFC 2104) with the secret of the dashboard.
#[derive(Clone)]
pub struct Forms {
    /// `None` if the system has no randomness for a secret: then no form is valid.
    hmac: Option<Hmac<Sha256>>,
}

impl Forms {
    pub fn new(secret: &[u8]) -> Forms {
        Forms { hmac: Hmac::new_from_slice(secret).ok() }
    }

    /// Makes a secret for this process.
    pub fn random() -> Forms {
        let mut secret = [0; 32];
        match getrandom::fill(&mut secret) {
            Ok(()) => Forms::new(&secret),
            Err(_) => Forms { hmac: None },
        }
    }

    /// Signs what a form carries, for a visitor and today.
    pub fn sign(&self, viewer: &str, carried: &str) -> String {
        let signature = self.mac(viewer, carried, today()).map(|mac| mac.finalize().into_bytes());
        signature.iter().flatten().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns true if this dashboard signed what the form carries, for this visitor, today or yesterday.
    pub fn verify(&self, viewer: &str, carried: &str, signature: &str) -> bool {
        let digits = |at| signature.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let Some(bytes) = (0..signature.len()).step_by(2).map(digits).collect::<Option<Vec<u8>>>() else {
            return false;
        };
        // `verify_slice` takes the same time wherever two signatures differ.
        [today(), today().saturating_sub(1)]
            .into_iter()
            .filter_map(|day| self.mac(viewer, carried, day))
            .any(|mac| mac.verify_slice(&bytes).is_ok())
    }

    /// Returns the name under which the change of a visitor's form is recorded, so that it is made once.
    pub fn request(&self, viewer: &str, form: &str) -> String {
        let mac = self.mac(viewer, &format!("request {form}"), 0).map(|mac| mac.finalize().into_bytes());
        mac.iter().flatten().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns a name for a text that tells nothing of the text to whom does not have the secret.
    pub fn name(&self, text: &str) -> String {
        let mac = self.mac("the name of", text, 0).map(|mac| mac.finalize().into_bytes());
        mac.iter().flatten().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    fn mac(&self, viewer: &str, carried: &str, day: u64) -> Option<Hmac<Sha256>> {
        let mut hmac = self.hmac.clone()?;
        // Each length stands before its text, so that no two pairs of texts give the same bytes.
        for part in [viewer, carried] {
            hmac.update(&(part.len() as u64).to_be_bytes());
            hmac.update(part.as_bytes());
        }
        hmac.update(&day.to_be_bytes());
        Some(hmac)
    }
}

/// Returns the number of days since 1970.
fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / SECONDS_A_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_valid_for_its_visitor_and_its_content() {
        let forms = Forms::new(b"secret");
        let signature = forms.sign("ada", "cancel mail");
        assert!(forms.verify("ada", "cancel mail", &signature));
        assert!(!forms.verify("eve", "cancel mail", &signature));
        assert!(!forms.verify("ada", "purge mail", &signature));
        assert!(!Forms::new(b"other").verify("ada", "cancel mail", &signature));
        assert!(!forms.verify("a", "dacancel mail", &forms.sign("ada", "cancel mail")));
        for wrong in ["", "00", "zz", "é", &signature[1..], &signature.replace(&signature[..1], "x")] {
            assert!(!forms.verify("ada", "cancel mail", wrong), "{wrong}");
        }
        assert_ne!(Forms::random().sign("", ""), Forms::random().sign("", ""));
    }
}
