//! `beespace:plugin/secrets` and `secrets-reveal`: secrets are used, not seen.

use hmac::{KeyInit as _, Mac as _};
use wasmtime::component::Resource;
use zeroize::Zeroizing;

use crate::bindings::notifier::beespace::plugin::{secrets, secrets_reveal};
use crate::sanitize;
use crate::state::State;

/// A secret as its owner keeps it.
#[derive(Clone)]
pub struct SecretValue {
    pub value: Zeroizing<Vec<u8>>,
    /// Hosts towards which placeholders become the value, as in [`crate::EgressRule::host`]. Empty: none.
    pub hosts: Vec<String>,
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretValue").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// Where secrets come from.
pub trait SecretSource: Send + Sync {
    /// The secret of this name, if there is one.
    ///
    /// # Errors
    /// A text for people, where it could not be read.
    fn secret(&self, name: &str) -> Result<Option<SecretValue>, String>;
}

/// A secret that a guest has opened. The value stays here.
#[expect(unreachable_pub, reason = "the generated code hands it on")]
pub struct HostSecret {
    name: String,
    secret: SecretValue,
}

impl std::fmt::Debug for HostSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostSecret").field("name", &self.name).finish_non_exhaustive()
    }
}

impl State {
    fn find_secret(&self, name: &str) -> Result<HostSecret, secrets::SecretError> {
        let named = || sanitize::sanitize(name, 100);
        let Some((granted, source)) = &self.capabilities.secrets else {
            return Err(secrets::SecretError::Denied(format!("no secret was granted to this binding, {} neither", named())));
        };
        if !granted.contains(name) {
            return Err(secrets::SecretError::Denied(format!("the secret {} was not granted to this binding", named())));
        }
        match source.secret(name) {
            Ok(Some(secret)) => Ok(HostSecret { name: name.to_owned(), secret }),
            Ok(None) => Err(secrets::SecretError::NotFound),
            Err(why) => Err(secrets::SecretError::Unavailable(why)),
        }
    }
}

impl secrets::Host for State {
    async fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<HostSecret>, secrets::SecretError>> {
        match self.find_secret(&name) {
            Ok(secret) => {
                self.egress.mask_value(secret.secret.value.clone());
                Ok(Ok(self.table.push(secret)?))
            }
            Err(error) => Ok(Err(error)),
        }
    }
}

impl secrets::HostSecret for State {
    async fn name(&mut self, secret: Resource<HostSecret>) -> wasmtime::Result<String> {
        Ok(self.table.get(&secret)?.name.clone())
    }

    async fn placeholder(&mut self, secret: Resource<HostSecret>) -> wasmtime::Result<String> {
        let secret = self.table.get(&secret)?;
        self.egress.add_placeholder(&secret.secret)
    }

    async fn hmac_sha256(
        &mut self,
        secret: Resource<HostSecret>,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<Vec<u8>, secrets::SecretError>> {
        let secret = self.table.get(&secret)?;
        Ok(match hmac::Hmac::<sha2::Sha256>::new_from_slice(&secret.secret.value) {
            Ok(mac) => Ok(mac.chain_update(&data).finalize().into_bytes().to_vec()),
            Err(_) => Err(secrets::SecretError::Unavailable("the secret is no key".to_owned())),
        })
    }

    async fn drop(&mut self, secret: Resource<HostSecret>) -> wasmtime::Result<()> {
        self.table.delete(secret)?;
        Ok(())
    }
}

impl secrets_reveal::Host for State {
    async fn reveal(&mut self, secret: Resource<HostSecret>) -> wasmtime::Result<Result<Vec<u8>, secrets::SecretError>> {
        Ok(Ok(self.table.get(&secret)?.secret.value.to_vec()))
    }
}
