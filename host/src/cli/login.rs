//! `beespace login`: saves a server's address and admin token in a file that only this user can read.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

use secrecy::SecretString;
use url::Url;

use super::client::Client;
use super::exit::{Exit, Failure};
use super::print_stderr;
use super::target::{Login, Server, login_path};
use crate::api::health::UserBody;
use crate::urls::API_PREFIX;

#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// URL of the server
    pub url: Url,
}

/// Reads the token, verifies it with the server, and saves it.
///
/// # Errors
/// [`Failure`] if the server is unreachable or rejects the token, or the file cannot be written.
pub async fn run(args: LoginArgs) -> Result<Exit, Failure> {
    let token = SecretString::from(if io::stdin().is_terminal() { prompt_hidden("Admin token: ")? } else { read_line()? });
    let server = Server { url: args.url.clone(), token: Some(token.clone()) };
    let user: UserBody = Client::new(server)?.get(&format!("{API_PREFIX}/user")).await?;
    if !user.is_admin {
        let help = "the token is in the file admin.token in the server's data directory";
        return Err(Failure::new(Exit::Auth, format!("this is not the admin token of {}", args.url)).help(help));
    }
    save(&Login { server: args.url.to_string(), token })?;
    print_stderr(&format!("signed in to {} as {}", args.url, user.id));
    Ok(Exit::Ok)
}

fn save(login: &Login) -> Result<(), Failure> {
    let path = login_path().ok_or_else(|| Failure::new(Exit::Usage, "neither XDG_CONFIG_HOME nor HOME is set"))?;
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

/// Reads one line from stdin and trims it.
pub(super) fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Prompts for a line without echoing what is typed.
///
/// # Errors
/// [`Failure`] if the terminal cannot be used.
pub fn prompt_hidden(prompt: &str) -> Result<String, Failure> {
    let set_echo = |on: &str| std::process::Command::new("stty").arg(on).status();
    // Disable the echo before the prompt, so that keys typed early are hidden too.
    set_echo("-echo")?;
    write!(io::stderr(), "{prompt}")?;
    let line = read_line();
    set_echo("echo")?;
    writeln!(io::stderr())?;
    line
}
