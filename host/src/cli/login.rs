//! `beespace login` and `beespace logout`: save a server's address and admin token for later commands, and remove them.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::client::Client;
use super::exit::{Exit, Failure};
use super::print_stderr;
use super::saved_login::{self, Login};
use super::server_and_repository::{ProxyArgs, Server, server_url};
use super::token::{Token, TokenSource};
use crate::api::health::UserBody;
use crate::urls::API_PREFIX;

#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// URL of the server
    #[arg(value_parser = server_url)]
    pub url: Url,
    #[command(flatten)]
    pub proxy: ProxyArgs,
}

/// Reads the token, verifies it with the server, and saves it.
///
/// # Errors
/// [`Failure`] if the server is unreachable or rejects the token, or the file cannot be written.
pub async fn run(args: LoginArgs) -> Result<Exit, Failure> {
    let token = SecretString::from(if io::stdin().is_terminal() { prompt_hidden("Admin token: ")? } else { read_line()? });
    if token.expose_secret().is_empty() {
        let help = format!("write it to stdin: beespace login {} < admin.token", args.url);
        return Err(Failure::new(Exit::Usage, "no token was given").help(help));
    }
    let sent = Token::new(token.clone(), TokenSource::LoginInput);
    let server = Server { url: args.url.clone(), token: Some(sent), proxy: args.proxy.proxy };
    let user: UserBody = Client::new(server)?.get(&format!("{API_PREFIX}/user")).await?;
    if !user.is_admin {
        let help = TokenSource::LoginInput.remedy(&args.url);
        return Err(Failure::new(Exit::Auth, format!("this is not the admin token of {}", args.url)).help(help));
    }
    saved_login::save(&Login { server: args.url.clone(), token })?;
    print_stderr(&format!("signed in to {} as {}", args.url, user.id));
    Ok(Exit::Ok)
}

/// Removes the saved login. The token itself stays valid.
///
/// # Errors
/// [`Failure`] if the file cannot be removed.
pub fn log_out() -> Result<Exit, Failure> {
    let server = saved_login::read().map_or_else(String::new, |login| format!(" of {}", login.server));
    let was_there = saved_login::remove()?;
    print_stderr(&if was_there { format!("the saved login{server} is removed") } else { "no login is saved".to_owned() });
    Ok(Exit::Ok)
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
