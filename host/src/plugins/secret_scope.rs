//! The secrets of plugins have a scope of their own. Before, plugins used the secrets of the instance, which every pipeline can
//! open.

use anyhow::Context as _;

use crate::clock::now;
use crate::config::NotifierBinding;
use crate::encryption::Key;
use crate::store::Store;
use crate::store::secret::{Secret, SecretScope, Secrets as _};

/// Moves the instance secrets that bindings may use to the scope of plugins. This happens once per store: a binding that is added
/// later must not take a secret away from pipelines.
///
/// # Errors
/// The store's; a secret that cannot be decrypted.
pub async fn move_granted_secrets(store: &Store, key: &Key, bindings: &[NotifierBinding]) -> anyhow::Result<()> {
    let mut moved = Vec::new();
    {
        let read = store.read()?;
        if read.plugin_secrets_moved()? {
            return Ok(());
        }
        for name in bindings.iter().flat_map(|binding| &binding.grants.secrets) {
            let is_known = moved.iter().any(|secret: &Secret| secret.name == *name);
            let Some(old) = read.secret(SecretScope::Instance, name)?.filter(|_| !is_known) else { continue };
            moved.push(resealed(key, old).with_context(|| format!("cannot move the secret {name:?} to the secrets of plugins"))?);
        }
    }
    for Secret { name, .. } in &moved {
        tracing::warn!(secret = name, "moved a secret to the secrets of plugins; pipelines can no longer read it");
    }
    Ok(store.write(move |write| write.move_secrets_to_plugins(&moved, now())).await?)
}

/// The secret in the scope of plugins.
fn resealed(key: &Key, old: Secret) -> anyhow::Result<Secret> {
    let value = key.open(&old.scope.associated_data(&old.name), &old.value)?;
    let scope = SecretScope::Plugins;
    let value = key.seal(&scope.associated_data(&old.name), &value)?;
    Ok(Secret { scope, value, moved_at: Some(now()), ..old })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const CONFIG: &str = "
[gogs]
url = \"http://gogs.example\"
token = \"t\"
[[notifier]]
name = \"hook\"
plugin = \"notify-webhook\"
grants = { secrets = [\"hook-key\", \"hook-key\", \"missing\"] }
";

    #[tokio::test(flavor = "multi_thread")]
    async fn granted_instance_secrets_are_moved_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let key = Key::load_or_create(&folder.path().join("key"), None).unwrap();
        let bindings = Config::read(CONFIG, None, []).unwrap().config.notifiers;
        let set = async |name: &str| {
            let scope = SecretScope::Instance;
            let value = key.seal(&scope.associated_data(name), b"the value").unwrap();
            let secret = Secret { scope, name: name.to_owned(), value, changed_at: now(), moved_at: None };
            store.set_secret(secret).await.unwrap();
        };
        let names = |scope| {
            let secrets = store.read().unwrap().secrets(scope).unwrap();
            secrets.into_iter().map(|secret| secret.name).collect::<Vec<_>>()
        };
        set("hook-key").await;
        set("of-pipelines").await;
        move_granted_secrets(&store, &key, &bindings).await.unwrap();
        assert_eq!(
            (names(SecretScope::Instance), names(SecretScope::Plugins)),
            (vec!["of-pipelines".into()], vec!["hook-key".into()])
        );
        let moved = store.read().unwrap().secret(SecretScope::Plugins, "hook-key").unwrap().unwrap();
        assert_eq!(&**key.open(&SecretScope::Plugins.associated_data("hook-key"), &moved.value).unwrap(), b"the value");
        assert!(moved.moved_at.is_some());
        set("hook-key").await;
        move_granted_secrets(&store, &key, &bindings).await.unwrap();
        assert_eq!(names(SecretScope::Instance), ["hook-key", "of-pipelines"], "an administrator put it back");
    }
}
