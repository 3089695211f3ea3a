//! Finds the server and the repository that a command applies to.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use beespace_core::error_cause::root_cause;
use beespace_core::ids::RepositoryName;
use secrecy::SecretString;
use url::{Host, Url};

use super::config::config_failure;
use super::exit::{Exit, Failure};
use super::saved_login::{self, Login};
use super::token::{Token, TokenSource};
use crate::config::{Config, DEFAULT_PATHS};

/// The remedy if no server is known.
const CHOOSE_A_SERVER: &str = "run `beespace login URL`, or pass --server URL, or pass --config FILE on the server's machine";

/// Options of every command that calls a server.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Server and repository")]
pub struct Target {
    /// URL of the server [env: BEESPACE_SERVER]; the variable `BEESPACE_TOKEN` replaces the saved token
    #[arg(long, global = true, value_name = "URL", value_parser = server_url)]
    pub server: Option<Url>,
    /// Server configuration file, for commands on the server's own machine, in place of --server [env: BEESPACE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// Repository [default: the git remote `origin` of the current directory]
    #[arg(long, global = true, value_name = "OWNER/NAME")]
    pub repo: Option<RepositoryName>,
}

/// The proxy of a client.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ProxyArgs {
    /// HTTP proxy for an https:// server; `HTTP_PROXY` and similar variables are not used
    #[arg(long, global = true, env = "BEESPACE_PROXY", value_name = "URL", value_parser = server_url)]
    pub proxy: Option<Url>,
}

/// The variables that name a server. The command line takes precedence, so clap does not read them.
#[derive(Debug, Default)]
struct Environment {
    server: Option<String>,
    config: Option<PathBuf>,
    token: Option<Token>,
}

impl Environment {
    /// The variables of this process. An empty one counts as not set.
    fn read() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            server: set("BEESPACE_SERVER"),
            config: set("BEESPACE_CONFIG").map(PathBuf::from),
            token: set("BEESPACE_TOKEN").map(|text| Token::new(SecretString::from(text), TokenSource::Variable)),
        }
    }
}

/// The source of the server's address.
#[derive(Debug)]
enum Source {
    /// Its URL.
    Url(Url),
    /// Its configuration file on this machine.
    Config(PathBuf),
    /// The login that `beespace login` saved.
    Login(Login),
    /// Nothing. The server may be on this machine with a configuration in a default location.
    Default,
}

/// A server and the token for it.
#[derive(Debug)]
pub struct Server {
    pub url: Url,
    pub token: Option<Token>,
    pub proxy: Option<Url>,
}

impl Target {
    /// Selects the server: the command line, else the environment, else the saved login, else the server whose configuration is
    /// in a default location of this machine. `BEESPACE_TOKEN` wins over every other token.
    ///
    /// # Errors
    /// [`Failure`] if none of these names a server or the command line names two, or the named configuration or its admin token
    /// cannot be read.
    pub fn server(&self) -> Result<Server, Failure> {
        let (env, login) = (Environment::read(), saved_login::read());
        let (url, token) = match self.source(&env, login.as_ref())? {
            Source::Url(url) => {
                let token = env.token.clone().or_else(|| known_token(&url, &env, login));
                (url, token)
            }
            Source::Config(path) => local_server(Some(&path), env.token)?,
            Source::Login(login) => {
                let saved = || Token::new(login.token, TokenSource::SavedLogin);
                (login.server, Some(env.token.unwrap_or_else(saved)))
            }
            Source::Default => default_server(env.token)?,
        };
        Ok(Server { url, token, proxy: self.proxy.proxy.clone() })
    }

    fn source(&self, env: &Environment, login: Option<&Login>) -> Result<Source, Failure> {
        match (&self.server, &self.config) {
            (Some(_), Some(_)) => {
                let help = "--config FILE has the address and the admin token of its server; --server URL names another one";
                return Err(Failure::new(Exit::Usage, "--server and --config cannot be used together").help(help));
            }
            (Some(url), None) => return Ok(Source::Url(url.clone())),
            (None, Some(path)) => return Ok(Source::Config(path.clone())),
            (None, None) => {}
        }
        if let Some(text) = &env.server {
            let url = server_url(text).map_err(|error| Failure::new(Exit::Usage, format!("BEESPACE_SERVER={text}: {error}")))?;
            return Ok(Source::Url(url));
        }
        if let Some(path) = &env.config {
            return Ok(Source::Config(path.clone()));
        }
        Ok(login.map_or(Source::Default, |login| Source::Login(login.clone())))
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

/// The saved token for a server, or the admin token if the server's configuration is on this machine.
fn known_token(url: &Url, env: &Environment, login: Option<Login>) -> Option<Token> {
    let saved = login.filter(|login| login.server == *url).map(|login| Token::new(login.token, TokenSource::SavedLogin));
    let local = || local_server(env.config.as_deref(), None).ok().filter(|(local, _)| local == url);
    saved.or_else(|| local()?.1)
}

/// Parses the URL of a server. `localhost:8000` is a URL for the parser, but with the scheme `localhost`.
pub(super) fn server_url(text: &str) -> Result<Url, String> {
    let url = text.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| "a URL begins with http:// or https://, for example https://ci.example.org".to_owned())
}

/// The server of this machine that a configuration describes, and its admin token.
fn local_server(path: Option<&Path>, token: Option<Token>) -> Result<(Url, Option<Token>), Failure> {
    let config = Config::load(path, std::env::vars()).map_err(|problems| config_failure(&problems))?.config;
    let url = config.server.local_url;
    if path.is_none() && !is_of_this_machine(&url) {
        let help = "pass --server URL, or --config FILE if you trust the file";
        let message = format!("{url} in the default configuration is not an address of this machine");
        return Err(Failure::new(Exit::Usage, message).help(help));
    }
    let token = token.map_or_else(|| read_admin_token(&url, config.data.admin_token_path()), Ok)?;
    Ok((url, Some(token)))
}

fn read_admin_token(url: &Url, path: PathBuf) -> Result<Token, Failure> {
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Token::new(SecretString::from(text.trim().to_owned()), TokenSource::AdminTokenFile(path))),
        Err(error) => {
            let help = "start the server once, run this as the server's user, or set BEESPACE_TOKEN";
            let message = format!("cannot read {}, the admin token of {url}: {}", path.display(), root_cause(&error));
            Err(Failure::new(Exit::Auth, message).help(help))
        }
    }
}

/// Whether the host is an address of this machine. A file of the current directory may come from a cloned repository, so it must
/// not choose who receives the admin token.
fn is_of_this_machine(url: &Url) -> bool {
    let address: IpAddr = match url.host() {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
        _ => return false,
    };
    UdpSocket::bind((address, 0)).is_ok()
}

/// The server of this machine whose configuration is in a default location or in the environment.
fn default_server(token: Option<Token>) -> Result<(Url, Option<Token>), Failure> {
    let has_file = DEFAULT_PATHS.iter().any(|path| Path::new(path).is_file());
    local_server(None, token).map_err(|failure| {
        if has_file { failure } else { Failure::new(Exit::Usage, "no server is configured").help(CHOOSE_A_SERVER) }
    })
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
    use secrecy::ExposeSecret as _;

    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    /// A short description of the selected server.
    fn selected(target: &Target, env: &Environment, login: Option<&Login>) -> String {
        match target.source(env, login).unwrap() {
            Source::Url(url) => url.to_string(),
            Source::Config(path) => path.display().to_string(),
            Source::Login(login) => format!("login {}", login.server),
            Source::Default => "default".to_owned(),
        }
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_the_environment_over_the_saved_login() {
        let login = Login { server: url("http://saved/"), token: "t".to_owned().into() };
        let mut target = Target::default();
        let mut env = Environment::default();
        assert_eq!(selected(&target, &env, None), "default");
        assert_eq!(selected(&target, &env, Some(&login)), "login http://saved/");
        env.config = Some("env.toml".into());
        assert_eq!(selected(&target, &env, Some(&login)), "env.toml");
        env.server = Some("http://env/".to_owned());
        assert_eq!(selected(&target, &env, Some(&login)), "http://env/");
        target.config = Some("given.toml".into());
        assert_eq!(selected(&target, &env, Some(&login)), "given.toml");
        let given = Target { server: Some(url("http://given/")), ..Target::default() };
        assert_eq!(selected(&given, &env, Some(&login)), "http://given/");
        let both = Target { config: target.config, ..given }.source(&env, Some(&login)).unwrap_err();
        assert!(both.exit == Exit::Usage && both.message.contains("--server and --config"), "{both}");
    }

    #[test]
    fn a_server_needs_a_scheme() {
        for wrong in ["ci.example.org", "localhost:8000", "ftp://ci.example.org", "http://"] {
            assert!(server_url(wrong).unwrap_err().contains("http://"), "{wrong}");
        }
        assert_eq!(server_url("http://localhost:8000").unwrap().as_str(), "http://localhost:8000/");
    }

    #[test]
    fn a_variable_that_is_no_url_is_a_usage_error_that_names_it() {
        let env = Environment { server: Some("ci.example.org".to_owned()), ..Environment::default() };
        let failure = Target::default().source(&env, None).unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.message.contains("BEESPACE_SERVER=ci.example.org"), "{failure}");
    }

    #[test]
    fn a_saved_token_is_sent_to_its_own_server_only() {
        let login = Login { server: url("http://saved/"), token: "t".to_owned().into() };
        let known = |text| known_token(&url(text), &Environment::default(), Some(login.clone()));
        let token = known("http://saved/").unwrap();
        assert_eq!((token.value.expose_secret(), token.source), ("t", TokenSource::SavedLogin));
        assert!(known("http://other/").is_none());
    }

    #[test]
    fn the_token_of_the_environment_wins_over_the_server_s_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let (config, data) = (folder.path().join("beespace.toml"), folder.path().join("data"));
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("admin.token"), "of-the-file\n").unwrap();
        let text = format!("[data]\ndir = \"{}\"\n[gogs]\nurl = \"http://gogs\"\ntoken = \"x\"\n", data.display());
        std::fs::write(&config, text).unwrap();
        let token = |given: Option<&str>| {
            let given = given.map(|text| Token::new(text.to_owned().into(), TokenSource::Variable));
            let token = local_server(Some(&config), given).unwrap().1.unwrap();
            (token.value.expose_secret().to_owned(), token.source)
        };
        assert_eq!(token(None), ("of-the-file".to_owned(), TokenSource::AdminTokenFile(data.join("admin.token"))));
        assert_eq!(token(Some("given")), ("given".to_owned(), TokenSource::Variable));
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
