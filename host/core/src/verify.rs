//! Verifies that bytes were signed with a webhook's secret. Nothing is parsed before.

use hmac::{Hmac, KeyInit as _, Mac as _};

use crate::digest::Digest;

/// A value that was derived from bytes with a valid signature. It can only come from [`verify`], or from [`restore`] for bytes
/// that were stored after the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Borrows the value.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// Converts the value; the result stays verified.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Verified<U> {
        Verified(f(self.0))
    }

    /// Marks a value that was parsed from this one as verified.
    pub(crate) fn derive<U>(&self, value: U) -> Verified<U> {
        Verified(value)
    }

    /// Returns the value without its proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Checks Gogs' `X-Gogs-Signature`: lower- or upper-case hex of HMAC-SHA256 over exactly `body`, compared in constant time. For
/// the form content type Gogs signs the decoded `payload` field, not the body (`reference: Gogs internal/database/webhook.go`);
/// the caller passes those bytes.
///
/// Returns `None` for an empty secret and for a missing, malformed or wrong signature, so that an attacker cannot distinguish the
/// cases. For the same reason the MAC is always computed: the response time is the same.
#[must_use]
pub fn verify(body: Vec<u8>, secret: &[u8], signature: Option<&str>) -> Option<Verified<Vec<u8>>> {
    let mut claimed = [0_u8; 32];
    let well_formed = signature.is_some_and(|text| hex::decode_to_slice(text, &mut claimed).is_ok());
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).ok()?;
    mac.update(&body);
    let matches = mac.verify_slice(&claimed).is_ok();
    (matches && well_formed && !secret.is_empty()).then_some(Verified(body))
}

/// Restores verified bytes from the store. `None` if their digest is not the one recorded when the signature was checked.
#[must_use]
pub fn restore(body: Vec<u8>, recorded: Digest) -> Option<Verified<Vec<u8>>> {
    (Digest::of(&body) == recorded).then_some(Verified(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(body: &[u8], secret: &[u8]) -> String {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap();
        mac.update(body);
        hex::encode(mac.finalize().into_bytes())
    }

    #[test]
    fn a_valid_signature_is_accepted_and_each_flipped_bit_is_refused() {
        let body = b"{\"ref\":\"x\"}".to_vec();
        let good = sign(&body, b"s3cret");
        assert!(verify(body.clone(), b"s3cret", Some(&good)).is_some());
        for bit in 0..256 {
            let mut bytes = hex::decode(&good).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(body.clone(), b"s3cret", Some(&hex::encode(bytes))).is_none());
        }
        for bit in 0..body.len() * 8 {
            let mut other = body.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(other, b"s3cret", Some(&good)).is_none());
        }
    }

    #[test]
    fn stored_bytes_are_restored_only_if_unchanged() {
        let body = b"x".to_vec();
        assert!(restore(body.clone(), Digest::of(&body)).is_some());
        assert!(restore(b"y".to_vec(), Digest::of(&body)).is_none());
    }

    #[test]
    fn malformed_signatures_are_refused() {
        let body = b"x".to_vec();
        for signature in [None, Some(""), Some("abc"), Some("zz"), Some(&*"0".repeat(64)), Some(&*"0".repeat(66))] {
            assert!(verify(body.clone(), b"k", signature).is_none(), "{signature:?}");
        }
        assert!(verify(body.clone(), b"", Some(&sign(&body, b""))).is_none(), "an empty secret is not accepted");
    }
}
