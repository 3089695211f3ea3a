//! Which server and which repository a command means.

use std::path::PathBuf;
use std::process::Command;

use beespace_core::ids::RepositoryName;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

use super::exit::{Exit, Failure};
use crate::config::Config;

/// Options of every command that talks to a server.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Target {
    /// The server's address
    #[arg(long, global = true, env = "BEESPACE_SERVER", value_name = "URL")]
    pub server: Option<Url>,
    /// The server's configuration, for commands on its own machine
    #[arg(long, global = true, env = "BEESPACE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The repository; else the one of the git remote `origin` here
    #[arg(long, global = true, value_name = "OWNER/NAME")]
    pub repo: Option<RepositoryName>,
}

/// What `beespace login` keeps, 0600.
#[derive(Debug, Serialize, Deserialize)]
pub struct Login {
    pub server: String,
    #[serde(serialize_with = "expose_token")]
    pub token: SecretString,
}

/// The file that only its owner reads is the one place where the token stands as it is.
fn expose_token<S: Serializer>(token: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose_secret())
}

/// A server and the token for it.
#[derive(Debug)]
pub struct Server {
    pub url: Url,
    pub token: Option<SecretString>,
}

/// Where [`Login`] lies: XDG's configuration directory.
#[must_use]
pub fn login_path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config"))).map(|dir| dir.join("beespace/login.json"))
}

fn login() -> Option<Login> {
    serde_json::from_slice(&std::fs::read(login_path()?).ok()?).ok()
}

impl Target {
    /// The server: `--server` or `BEESPACE_SERVER`, the one of `beespace login`, or the one whose configuration and admin token lie
    /// on this machine.
    ///
    /// # Errors
    /// [`Failure`] where none is known.
    pub fn server(&self) -> Result<Server, Failure> {
        let given = std::env::var("BEESPACE_TOKEN").ok().map(SecretString::from);
        let login = login();
        if let Some(url) = self.server.clone() {
            let known = login.filter(|login| login.server == url.as_str()).map(|login| login.token);
            let token =
                given.or(known).or_else(|| self.local_server().filter(|local| local.url == url).and_then(|local| local.token));
            return Ok(Server { url, token });
        }
        if let Some((login, url)) = login.and_then(|login| Url::parse(&login.server).ok().map(|url| (login, url))) {
            return Ok(Server { url, token: given.or(Some(login.token)) });
        }
        self.local_server().ok_or_else(|| {
            let help = "beespace login URL, or --server URL, or run it on the server's machine with --config FILE";
            Failure::new(Exit::Usage, "no server is known").help(help)
        })
    }

    /// The server of this machine, where this user may read its admin token.
    fn local_server(&self) -> Option<Server> {
        let config = Config::load(self.config.as_deref(), std::env::vars()).ok()?.config;
        let token = std::fs::read_to_string(config.data.admin_token_path()).ok()?;
        let url = Url::parse(&format!("http://{}/", config.server.listen)).ok()?;
        Some(Server { url, token: Some(SecretString::from(token.trim().to_owned())) })
    }

    /// The repository: `--repo`, or what the remote `origin` of this directory names.
    ///
    /// # Errors
    /// [`Failure`] where neither says one.
    pub fn repository(&self) -> Result<RepositoryName, Failure> {
        let found = self.repo.clone().or_else(remote_repository);
        found.ok_or_else(|| Failure::new(Exit::Usage, "no repository is meant").help("--repo OWNER/NAME, or a clone of it"))
    }
}

fn remote_repository() -> Option<RepositoryName> {
    let output = Command::new("git").args(["remote", "get-url", "origin"]).output().ok()?;
    remote_name(String::from_utf8(output.stdout).ok()?.trim())
}

/// The last two parts of `http://host/acme/app.git`, `git@host:acme/app.git` and the like.
fn remote_name(remote: &str) -> Option<RepositoryName> {
    let remote = remote.strip_suffix(".git").unwrap_or(remote);
    let mut parts = remote.rsplit(['/', ':']);
    let (name, owner) = (parts.next()?, parts.next()?);
    RepositoryName::new(owner, name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_kept_whole_and_shows_no_token() {
        let login = Login { server: "http://b.example/".to_owned(), token: "bee_canary".to_owned().into() };
        assert!(!format!("{login:?}").contains("canary"));
        let kept: Login = serde_json::from_str(&serde_json::to_string(&login).unwrap()).unwrap();
        assert_eq!((kept.server, kept.token.expose_secret()), (login.server, "bee_canary"));
    }

    #[test]
    fn remotes_name_their_repository() {
        for remote in
            ["http://gogs.local:3000/acme/app.git", "git@gogs.local:acme/app.git", "ssh://git@h:2222/acme/app", "/srv/acme/app"]
        {
            assert_eq!(remote_name(remote).map(|name| name.to_string()).as_deref(), Some("acme/app"), "{remote}");
        }
        assert_eq!(remote_name("nothing"), None);
    }
}
