//! `[gogs]`: the connection to the forge.

use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use super::reader::Section;

/// The connection to Gogs. A server uses one Gogs instance.
#[derive(Debug, Clone)]
pub struct GogsConfig {
    /// The URL of Gogs.
    pub url: Url,
    /// The access token of a user who may add webhooks to the repositories.
    pub token: SecretString,
    /// The file that the token was read from; none if the token was set directly.
    pub token_file: Option<PathBuf>,
    /// Additional trusted certificates, as a PEM file.
    pub ca_file: Option<PathBuf>,
}

impl GogsConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let url = section.required("url", "http://gogs.local:3000");
        let written = section.is_set("token") || section.is_set("token_file");
        let secret = section.secret("token", "token_file");
        if secret.is_none() && !written {
            section.missing("token", "create a token in Gogs (Your Settings, Applications) and set token_file = \"…\"");
        }
        let ca_file = section.path("ca_file");
        let (token, token_file) = secret?;
        Some(Self { url: url?, token, token_file, ca_file })
    }
}
