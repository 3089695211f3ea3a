//! `[gogs]`: the forge.

use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use super::reader::Section;

/// The one Gogs that this server belongs to.
#[derive(Debug, Clone)]
pub struct GogsConfig {
    pub url: Url,
    /// Of a user who may add hooks to the repositories that shall build.
    pub token: SecretString,
    /// Certificates to trust beside those of the system, PEM.
    pub ca_file: Option<PathBuf>,
}

impl GogsConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let url = section.required("url", "http://gogs.local:3000");
        let written = section.is_set("token") || section.is_set("token_file");
        let token = section.secret("token", "token_file");
        if token.is_none() && !written {
            section.missing("token", "make one in Gogs under Settings, Applications, and name its file: token_file = \"…\"");
        }
        let ca_file = section.optional("ca_file");
        Some(Self { url: url?, token: token?, ca_file })
    }
}
