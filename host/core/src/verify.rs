//! Proof that bytes were signed with a hook's secret. Nothing is parsed before it.

use hmac::{Hmac, KeyInit as _, Mac as _};

use crate::digest::Digest;

/// A value that came from bytes whose signature was checked. The ways to one are [`verify`], and [`restore`] for bytes that were
/// stored after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Looks at the value; it stays verified.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// The same value in another form stays verified.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Verified<U> {
        Verified(f(self.0))
    }

    /// What was read from the value is as verified as the value.
    pub(crate) fn derive<U>(&self, value: U) -> Verified<U> {
        Verified(value)
    }

    /// Gives the value away.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Checks Gogs' `X-Gogs-Signature`: lower- or upper-case hex of HMAC-SHA256 over exactly `body`, compared in constant time.
/// For the form content type Gogs signs the decoded `payload` field, not the body (`reference: Gogs internal/database/webhook.go`);
/// the caller passes those bytes.
///
/// Returns `None` for an empty secret, a missing or malformed signature, and a wrong one: all the same to the sender. The MAC is
/// computed in every case, so that the time taken does not tell which it was.
#[must_use]
pub fn verify(body: Vec<u8>, secret: &[u8], signature: Option<&str>) -> Option<Verified<Vec<u8>>> {
    let mut claimed = [0_u8; 32];
    let well_formed = signature.is_some_and(|text| hex::decode_to_slice(text, &mut claimed).is_ok());
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).ok()?;
    mac.update(&body);
    let matches = mac.verify_slice(&claimed).is_ok();
    (matches && well_formed && !secret.is_empty()).then_some(Verified(body))
}

/// Bytes read back from the store are still the verified ones where their digest is the one recorded when the signature was checked.
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
    fn a_right_signature_is_accepted_and_each_flipped_bit_refused() {
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
    fn stored_bytes_stay_verified_only_while_they_are_the_same() {
        let body = b"x".to_vec();
        assert!(restore(body.clone(), Digest::of(&body)).is_some());
        assert!(restore(b"y".to_vec(), Digest::of(&body)).is_none());
    }

    #[test]
    fn nothing_else_counts_as_a_signature() {
        let body = b"x".to_vec();
        for signature in [None, Some(""), Some("abc"), Some("zz"), Some(&*"0".repeat(64)), Some(&*"0".repeat(66))] {
            assert!(verify(body.clone(), b"k", signature).is_none(), "{signature:?}");
        }
        assert!(verify(body.clone(), b"", Some(&sign(&body, b""))).is_none(), "an empty secret is no secret");
    }
}
