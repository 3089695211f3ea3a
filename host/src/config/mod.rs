//! The configuration: `beespace.toml`, the environment, and the origin of each value.
//!
//! There are three layers: built-in defaults, the file, and the environment (`BEESPACE_SECTION__KEY`, for secrets also `…_FILE`).
//! A later layer overrides an earlier one. Every value records its layer for `beespace config show --origin`. All errors are
//! reported together, each with its location and the expected value.

mod binding;
mod data;
mod engine;
mod gogs;
mod limits;
mod plugins;
mod reader;
mod retention;
mod server;
mod value;

use std::path::{Path, PathBuf};

use beespace_core::diagnostic::Diagnostic;

pub use binding::{
    AddressClass, BindingLines, FORKS, Grants, HostGrant, NotifierBinding, PluginBinding, PluginSource, PolicyBinding,
};
pub use data::DataConfig;
pub use engine::{DockerConfig, EngineConfig, EngineKind};
pub use gogs::GogsConfig;
pub use limits::LimitsConfig;
pub use plugins::PluginsConfig;
pub use reader::{ConfigEntry, Origin};
pub use retention::RetentionConfig;
pub use server::ServerConfig;

use reader::Reader;

/// The default locations of the file. The first one that exists is read.
pub const DEFAULT_PATHS: [&str; 2] = ["beespace.toml", "/etc/beespace/beespace.toml"];

/// All settings of the instance, from the file and the environment.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: ServerConfig,
    pub data: DataConfig,
    pub gogs: GogsConfig,
    pub engine: EngineConfig,
    pub limits: LimitsConfig,
    pub plugins: PluginsConfig,
    pub retention: RetentionConfig,
    /// In the order of the file, which is the order of evaluation; then the default policy, unless the file replaces it.
    pub policies: Vec<PolicyBinding>,
    pub steps: Vec<PluginBinding>,
    pub notifiers: Vec<NotifierBinding>,
}

/// A configuration and the origin of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read, if there is one.
    pub path: Option<PathBuf>,
    /// Every key with its displayable value and its origin, in the order of the documentation.
    pub entries: Vec<ConfigEntry>,
}

/// A configuration with errors.
#[derive(Debug)]
pub struct InvalidConfig {
    /// All errors, in the order of the file.
    pub problems: Vec<Diagnostic>,
    /// The configuration with defaults in place of wrong values, for further checks only; `None` if too much is missing.
    pub partial: Option<Box<Config>>,
}

impl From<Vec<Diagnostic>> for InvalidConfig {
    fn from(problems: Vec<Diagnostic>) -> Self {
        Self { problems, partial: None }
    }
}

impl Config {
    /// Reads all layers. `path` is the file to read; `None` searches [`DEFAULT_PATHS`]. `env` is the environment of the process.
    ///
    /// # Errors
    /// All errors, in the order of the file.
    pub fn load(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, Vec<Diagnostic>> {
        Self::check(path, env).map_err(|invalid| invalid.problems)
    }

    /// Like [`Config::load`], but returns as much as can be read.
    ///
    /// # Errors
    /// All errors, and the rest of the configuration.
    pub fn check(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, InvalidConfig> {
        let Some(path) = path.map_or_else(default_path, |path| Some(path.to_owned())) else {
            let reader = Reader::without_file(env);
            if reader.is_environment_empty() {
                return Err(vec![missing_file()].into());
            }
            let explain = |invalid: InvalidConfig| InvalidConfig {
                problems: std::iter::once(missing_file()).chain(invalid.problems).collect(),
                ..invalid
            };
            return Self::read_layers(reader, None).map_err(explain);
        };
        let text = std::fs::read_to_string(&path).map_err(|error| vec![unreadable(&path, &error)])?;
        Self::read_layers(Reader::new(&text, Some(&path), env)?, Some(path.clone()))
    }

    /// Like [`Config::load`], but reads the file's content from `text`. Error messages name `path`, and relative paths in the
    /// text are relative to its directory.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(
        text: &str,
        path: Option<PathBuf>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, Vec<Diagnostic>> {
        Self::read_layers(Reader::new(text, path.as_deref(), env)?, path).map_err(|invalid| invalid.problems)
    }

    fn read_layers(mut reader: Reader<'_>, path: Option<PathBuf>) -> Result<Loaded, InvalidConfig> {
        let server = ServerConfig::read(&mut reader.section("server"));
        let data = DataConfig::read(&mut reader.section("data"));
        let gogs = GogsConfig::read(&mut reader.section("gogs"));
        let engine = EngineConfig::read(&mut reader.section("engine"));
        let limits = LimitsConfig::read(&mut reader.section("limits"));
        let plugins = PluginsConfig::read(&mut reader.section("plugins"));
        let retention = RetentionConfig::read(&mut reader.section("retention"));
        let mut policies = reader.list("policy", PolicyBinding::read);
        if policies.iter().all(|policy: &PolicyBinding| policy.plugin.name != FORKS) {
            policies.push(PolicyBinding::forks());
        }
        let steps = reader.list("step", PluginBinding::read);
        let notifiers = reader.list("notifier", NotifierBinding::read);
        let finished = reader.finish();
        // `finish` has the errors of a section that could not be read.
        let (Some(server), Some(gogs)) = (server, gogs) else { return Err(finished.err().unwrap_or_default().into()) };
        let config = Self { server, data, gogs, engine, limits, plugins, retention, policies, steps, notifiers };
        match finished {
            Ok(entries) => Ok(Loaded { config, path, entries }),
            Err(problems) => Err(InvalidConfig { problems, partial: Some(Box::new(config)) }),
        }
    }
}

fn default_path() -> Option<PathBuf> {
    DEFAULT_PATHS.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// The file is optional while the environment contains everything, so this is reported together with what is missing there.
fn missing_file() -> Diagnostic {
    let [here, system] = DEFAULT_PATHS;
    Diagnostic {
        code: "no-file".to_owned(),
        message: "no configuration file exists".to_owned(),
        file: format!("{here}, {system}"),
        span: None,
        help: Some(
            "write one of them, pass another one with --config or BEESPACE_CONFIG, or set at least BEESPACE_GOGS__URL and \
             BEESPACE_GOGS__TOKEN_FILE"
                .to_owned(),
        ),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    Diagnostic {
        code: "unreadable".to_owned(),
        message: format!("could not read the file: {error}"),
        file: path.display().to_string(),
        span: None,
        help: Some("check the file, or pass another one with --config or BEESPACE_CONFIG".to_owned()),
    }
}
