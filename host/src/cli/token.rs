//! The token of a command, and where a person corrects it if the server rejects it.

use std::fmt;
use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

/// A token and its source.
#[derive(Debug, Clone)]
pub struct Token {
    pub value: SecretString,
    pub source: TokenSource,
}

/// The source of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// The variable `BEESPACE_TOKEN`, which wins over every other source.
    Variable,
    /// The login that `beespace login` saved.
    SavedLogin,
    /// The file with the admin token of a server on this machine.
    AdminTokenFile(PathBuf),
    /// The input of `beespace login`.
    LoginInput,
}

impl Token {
    #[must_use]
    pub fn new(value: SecretString, source: TokenSource) -> Self {
        Self { value, source }
    }
}

/// The end of `the server rejects the token …`.
impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable => f.write_str("in BEESPACE_TOKEN"),
            Self::SavedLogin => f.write_str("of the saved login"),
            Self::AdminTokenFile(path) => write!(f, "in {}", path.display()),
            Self::LoginInput => f.write_str("that was entered"),
        }
    }
}

impl TokenSource {
    /// The remedy if the server at `url` rejects the token.
    #[must_use]
    pub fn remedy(&self, url: &Url) -> String {
        match self {
            Self::Variable => {
                "correct BEESPACE_TOKEN, or unset it to use the saved login or the server's configuration".to_owned()
            }
            Self::SavedLogin => format!("sign in again: beespace login {url}"),
            Self::AdminTokenFile(_) => {
                "check that the server uses this data directory, and restart it if the file was replaced".to_owned()
            }
            Self::LoginInput => "the admin token is in the file admin.token in the server's data directory".to_owned(),
        }
    }
}
