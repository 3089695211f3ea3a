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
    /// Additional trusted certificates, as a PEM file.
    pub ca_file: Option<PathBuf>,
}

impl GogsConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let url = section.required("url", "http://gogs.local:3000");
        let written = section.is_set("token") || section.is_set("token_file");
        let token = section.secret("token", "token_file");
        if token.is_none() && !written {
            section.missing("token", "create a token in Gogs (Settings > Applications) and set token_file = \"…\"");
        }
        let ca_file = section.optional("ca_file");
        Some(Self { url: url?, token: token?, ca_file })
    }
}
