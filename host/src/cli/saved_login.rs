//! The saved login: the file in which `beespace login` keeps a server's address and token, and which `beespace logout` removes.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::exit::{Exit, Failure};

/// A server and the admin token for it. Only the user can read the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Login {
    #[serde(serialize_with = "write_url", deserialize_with = "read_url")]
    pub server: Url,
    #[serde(serialize_with = "expose_token")]
    pub token: SecretString,
}

/// Writes the token in plain text: only its owner can read the file, and nothing else serializes a token.
fn expose_token<S: Serializer>(token: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose_secret())
}

fn write_url<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(url)
}

fn read_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// The file, in the XDG configuration directory.
fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config"))).map(|dir| dir.join("beespace/login.json"))
}

/// The saved login, if there is one.
#[must_use]
pub fn read() -> Option<Login> {
    serde_json::from_slice(&std::fs::read(path()?).ok()?).ok()
}

/// Saves a login in place of an earlier one.
///
/// # Errors
/// [`Failure`] if the file cannot be written.
pub fn save(login: &Login) -> Result<(), Failure> {
    let path = path().ok_or_else(|| Failure::new(Exit::Usage, "neither XDG_CONFIG_HOME nor HOME is set"))?;
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let text = serde_json::to_vec_pretty(login).map_err(|error| Failure::new(Exit::Bug, error.to_string()))?;
    // Write a new file and rename it over the old one: the file is never incomplete and never has other permissions.
    let fresh = path.with_extension("new");
    if fresh.exists() {
        std::fs::remove_file(&fresh)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?.write_all(&text)?;
    Ok(std::fs::rename(&fresh, &path)?)
}

/// Removes the saved login. Returns whether there was one, readable or not.
///
/// # Errors
/// [`Failure`] if the file cannot be removed.
pub fn remove() -> Result<bool, Failure> {
    let Some(path) = path() else { return Ok(false) };
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_round_trips_and_its_debug_output_hides_the_token() {
        let login = Login { server: "http://b.example/".parse().unwrap(), token: "bee_canary".to_owned().into() };
        assert!(!format!("{login:?}").contains("canary"));
        let kept: Login = serde_json::from_str(&serde_json::to_string(&login).unwrap()).unwrap();
        assert_eq!((kept.server, kept.token.expose_secret()), (login.server, "bee_canary"));
    }
}
