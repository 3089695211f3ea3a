//! Finds the server and the repository that a command applies to.

use std::path::PathBuf;
use std::process::Command;

use beespace_core::ids::RepositoryName;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

use super::exit::{Exit, Failure};
use crate::config::Config;

/// Options of every command that calls a server.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Target {
    /// URL of the server
    #[arg(long, global = true, env = "BEESPACE_SERVER", value_name = "URL")]
    pub server: Option<Url>,
    /// Server configuration file, for commands on the server's own machine
    #[arg(long, global = true, env = "BEESPACE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Repository [default: the git remote `origin` of the current directory]
    #[arg(long, global = true, value_name = "OWNER/NAME")]
    pub repo: Option<RepositoryName>,
}

/// The file that `beespace login` writes, with mode 0600.
#[derive(Debug, Serialize, Deserialize)]
pub struct Login {
    pub server: String,
    #[serde(serialize_with = "expose_token")]
    pub token: SecretString,
}

/// Writes the token in plain text: only its owner can read the login file, and nothing else serializes a token.
fn expose_token<S: Serializer>(token: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose_secret())
}

/// A server and the token for it.
#[derive(Debug)]
pub struct Server {
    pub url: Url,
    pub token: Option<SecretString>,
}

/// Path of the [`Login`] file, in the XDG configuration directory.
#[must_use]
pub fn login_path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config"))).map(|dir| dir.join("beespace/login.json"))
}

fn login() -> Option<Login> {
    serde_json::from_slice(&std::fs::read(login_path()?).ok()?).ok()
}

impl Target {
    /// Selects the server: `--server` or `BEESPACE_SERVER`, else the saved login, else the server whose configuration and admin
    /// token are on this machine.
    ///
    /// # Errors
    /// [`Failure`] if none of these exists.
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
            let help = "run `beespace login URL`, or pass --server URL, or pass --config FILE on the server's machine";
            Failure::new(Exit::Usage, "no server is configured").help(help)
        })
    }

    /// The server on this machine, if this user can read its admin token.
    fn local_server(&self) -> Option<Server> {
        let config = Config::load(self.config.as_deref(), std::env::vars()).ok()?.config;
        let token = std::fs::read_to_string(config.data.admin_token_path()).ok()?;
        let url = Url::parse(&format!("http://{}/", config.server.listen)).ok()?;
        Some(Server { url, token: Some(SecretString::from(token.trim().to_owned())) })
    }

    /// Selects the repository: `--repo`, else the git remote `origin` of the current directory.
    ///
    /// # Errors
    /// [`Failure`] if neither names a repository.
    pub fn repository(&self) -> Result<RepositoryName, Failure> {
        let found = self.repo.clone().or_else(remote_repository);
        found.ok_or_else(|| {
            Failure::new(Exit::Usage, "no repository given")
                .help("pass --repo OWNER/NAME, or run this in a clone of the repository")
        })
    }
}

fn remote_repository() -> Option<RepositoryName> {
    let output = Command::new("git").args(["remote", "get-url", "origin"]).output().ok()?;
    remote_name(String::from_utf8(output.stdout).ok()?.trim())
}

/// Takes the last two segments of `http://host/acme/app.git`, `git@host:acme/app.git` and similar URLs.
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
    fn a_login_round_trips_and_its_debug_output_hides_the_token() {
        let login = Login { server: "http://b.example/".to_owned(), token: "bee_canary".to_owned().into() };
        assert!(!format!("{login:?}").contains("canary"));
        let kept: Login = serde_json::from_str(&serde_json::to_string(&login).unwrap()).unwrap();
        assert_eq!((kept.server, kept.token.expose_secret()), (login.server, "bee_canary"));
    }

    #[test]
    fn remote_urls_yield_the_repository_name() {
        for remote in
            ["http://gogs.local:3000/acme/app.git", "git@gogs.local:acme/app.git", "ssh://git@h:2222/acme/app", "/srv/acme/app"]
        {
            assert_eq!(remote_name(remote).map(|name| name.to_string()).as_deref(), Some("acme/app"), "{remote}");
        }
        assert_eq!(remote_name("nothing"), None);
    }
}
