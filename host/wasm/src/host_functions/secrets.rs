//! `beespace:plugin/secrets` and `secrets-reveal`. A plugin uses a secret (signature, placeholder) without seeing its value,
//! unless the separate interface `secrets-reveal` is granted.

use hmac::{KeyInit as _, Mac as _};
use wasmtime::component::Resource;

use crate::bindings::notifier::beespace::plugin::{secrets, secrets_reveal};
use crate::resources::HostSecret;
use crate::sanitize::sanitize;
use crate::state::State;

impl State {
    fn find_secret(&self, name: &str) -> Result<HostSecret, secrets::SecretError> {
        let named = || sanitize(name, 100);
        let Some((granted, source)) = &self.resources.secrets else {
            return Err(secrets::SecretError::Denied(format!(
                "no secrets are granted to this binding, so {} cannot be opened",
                named()
            )));
        };
        if !granted.contains(name) {
            return Err(secrets::SecretError::Denied(format!("the secret {} is not granted to this binding", named())));
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
            Err(_) => Err(secrets::SecretError::Unavailable("the secret cannot be used as a key".to_owned())),
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
