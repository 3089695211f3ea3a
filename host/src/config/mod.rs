//! `beespace.toml`, the environment, and where each value came from.
//!
//! Three layers: what is built in, the file, the environment (`BEESPACE_SECTION__KEY`, for secrets also `…_FILE`); the later wins.
//! Every value remembers its layer, so that `beespace config show --origin` can say why something is as it is. Every problem is
//! reported at once, with its place and what was expected.

mod binding;
mod data;
mod engine;
mod gogs;
mod limits;
mod reader;
mod retention;
mod server;
mod value;

use std::path::{Path, PathBuf};

use beespace_core::diagnostic::Diagnostic;

pub use binding::{AddressClass, Grants, HostGrant, NotifierBinding, PluginBinding, PluginSource, PolicyBinding};
pub use data::DataConfig;
pub use engine::{DockerConfig, EngineConfig, EngineKind};
pub use gogs::GogsConfig;
pub use limits::LimitsConfig;
pub use reader::{Entry, Origin};
pub use retention::RetentionConfig;
pub use server::ServerConfig;

use reader::Reader;

/// Where the file lies when nobody says otherwise: the first of these that exists.
pub const DEFAULT_PATHS: [&str; 2] = ["beespace.toml", "/etc/beespace/beespace.toml"];

/// Everything an administrator decides in the file or the environment.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: ServerConfig,
    pub data: DataConfig,
    pub gogs: GogsConfig,
    pub engine: EngineConfig,
    pub limits: LimitsConfig,
    pub retention: RetentionConfig,
    /// In the order of the file, which is the order in which they are asked.
    pub policies: Vec<PolicyBinding>,
    pub steps: Vec<PluginBinding>,
    pub notifiers: Vec<NotifierBinding>,
}

/// A configuration and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read; none where there is none.
    pub path: Option<PathBuf>,
    /// Every key with its value as it may be shown and its origin, in the order of the documentation.
    pub entries: Vec<Entry>,
}

impl Config {
    /// Reads the layers. `path`: the file to read; none looks in [`DEFAULT_PATHS`]. `env`: the process' environment.
    ///
    /// # Errors
    /// Every problem found, in the order of the file; never only the first.
    pub fn load(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, Vec<Diagnostic>> {
        let path = path.map_or_else(default_path, |path| Some(path.to_owned()));
        let text = match &path {
            Some(path) => std::fs::read_to_string(path).map_err(|error| vec![unreadable(path, &error)])?,
            None => String::new(),
        };
        Self::read(&text, path, env)
    }

    /// The same for a text that is already at hand; `path` names it in messages, and relative paths in it start from there.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(
        text: &str,
        path: Option<PathBuf>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, Vec<Diagnostic>> {
        let mut reader = Reader::new(text, path.as_deref(), env)?;
        let server = ServerConfig::read(&mut reader.section("server"));
        let data = DataConfig::read(&mut reader.section("data"));
        let gogs = GogsConfig::read(&mut reader.section("gogs"));
        let engine = EngineConfig::read(&mut reader.section("engine"));
        let limits = LimitsConfig::read(&mut reader.section("limits"));
        let retention = RetentionConfig::read(&mut reader.section("retention"));
        let policies = reader.list("policy", PolicyBinding::read);
        let steps = reader.list("step", PluginBinding::read);
        let notifiers = reader.list("notifier", NotifierBinding::read);
        let names = [
            ("policy", policies.iter().map(|policy| &policy.plugin.name).collect::<Vec<_>>()),
            ("step", steps.iter().map(|step| &step.name).collect()),
            ("notifier", notifiers.iter().map(|notifier| &notifier.plugin.name).collect()),
        ];
        for (kind, names) in names {
            reader.reject_duplicate_names(kind, &names);
        }
        let entries = reader.finish()?;
        // A section that could not be read has told why, so that `finish` has already returned.
        let (Some(server), Some(gogs)) = (server, gogs) else { return Err(Vec::new()) };
        let config = Self { server, data, gogs, engine, limits, retention, policies, steps, notifiers };
        Ok(Loaded { config, path, entries })
    }
}

fn default_path() -> Option<PathBuf> {
    DEFAULT_PATHS.iter().map(PathBuf::from).find(|path| path.is_file())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    Diagnostic {
        code: "unreadable".to_owned(),
        message: format!("cannot be read: {error}"),
        file: path.display().to_string(),
        span: None,
        help: Some("name another file with --config or BEESPACE_CONFIG".to_owned()),
    }
}
