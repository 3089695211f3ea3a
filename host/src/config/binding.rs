//! `[[policy]]`, `[[step]]`, `[[notifier]]`: plugin bindings and their grants.

use std::collections::BTreeMap;
use std::path::PathBuf;

use beespace_core::digest::Digest;
use beespace_core::policy::{Mode, Point};
use toml::de::{DeString, DeValue};

use super::reader::{Node, Section, did_you_mean};
use super::value::{Kind, Value};

/// A plugin bound to a name.
#[derive(Debug, Clone)]
pub struct PluginBinding {
    /// The name of the binding, unique among bindings of the same kind. Decisions and pages show it.
    pub name: String,
    pub source: PluginSource,
    /// The required digest of the component, if the file pins it.
    pub sha256: Option<Digest>,
    /// The plugin's settings; `{}` if the file has none.
    pub settings: serde_json::Value,
    pub lines: BindingLines,
}

/// The lines of a binding in the file, for messages about it.
#[derive(Debug, Clone, Default)]
pub struct BindingLines {
    file: String,
    binding: Option<u32>,
    /// The line of each value in the settings, by its JSON pointer.
    settings: BTreeMap<String, u32>,
}

impl BindingLines {
    /// `FILE:LINE` of the binding.
    #[must_use]
    pub fn of_binding(&self) -> String {
        self.binding.map_or_else(|| self.file.clone(), |line| format!("{}:{line}", self.file))
    }

    /// `FILE:LINE` of the value at `pointer` in the settings, or of what contains it.
    #[must_use]
    pub fn of_setting(&self, pointer: &str) -> String {
        let mut pointer = pointer;
        loop {
            match (self.settings.get(pointer), pointer.rsplit_once('/')) {
                (Some(line), _) => return format!("{}:{line}", self.file),
                (None, Some((parent, _))) => pointer = parent,
                (None, None) => return self.of_binding(),
            }
        }
    }
}

/// The source of the component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginSource {
    /// A bundled or installed plugin.
    Named(String),
    /// A file. A relative path has been resolved against the directory of the configuration file.
    File(PathBuf),
}

/// A policy and the effect of its verdicts.
#[derive(Debug, Clone)]
pub struct PolicyBinding {
    pub plugin: PluginBinding,
    pub mode: Mode,
    /// The paths that its patches may change, by point: JSON pointers (RFC 6901) in which `*` matches one segment.
    pub mutate: BTreeMap<Point, Vec<String>>,
    /// Bound without a `[[policy]]` in the file: [`FORKS`].
    pub is_default: bool,
}

/// The name of the policy that is bound by default. A `[[policy]]` with this name replaces it.
pub const FORKS: &str = "forks";

/// A notifier and its grants.
#[derive(Debug, Clone)]
pub struct NotifierBinding {
    pub plugin: PluginBinding,
    pub grants: Grants,
}

/// The capabilities that the administrator grants to a plugin.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// Hosts that the plugin may call.
    pub hosts: Vec<HostGrant>,
    /// Names of instance secrets that the plugin may use.
    pub secrets: Vec<String>,
    /// Whether the plugin may use key-value storage.
    pub kv: bool,
}

/// A host that a plugin may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostGrant {
    /// Scheme, host and port, without a path.
    pub url: url::Url,
    pub addresses: AddressClass,
}

/// The class of addresses that the host's name may resolve to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressClass {
    #[default]
    Public,
    /// Private networks (10/8, 192.168/16, fc00::/7, …).
    Private,
    Loopback,
}

impl Value for Mode {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "`enforce`, `warn` or `shadow`";
    fn parse(text: &str) -> Option<Self> {
        match text {
            "enforce" => Some(Self::Enforce),
            "warn" => Some(Self::Warn),
            "shadow" => Some(Self::Shadow),
            _ => None,
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Enforce => "enforce",
            Self::Warn => "warn",
            Self::Shadow => "shadow",
        }
        .to_owned()
    }
}

impl Value for Digest {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "64 hex digits, the SHA-256 of the component";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.hex()
    }
}

impl PluginBinding {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let name = section.required::<String>("name", "images");
        let plugin = section.required::<String>("plugin", "policy-images");
        let sha256 = section.optional("sha256");
        let mut lines = BindingLines { file: section.file(), binding: section.line(), settings: BTreeMap::new() };
        let settings = read_settings(section, &mut lines.settings);
        Some(Self { name: name?, source: plugin_source(section, plugin?), sha256, settings, lines })
    }
}

impl PolicyBinding {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let plugin = PluginBinding::read(section);
        let mode = section.value("mode", Mode::default());
        let mutate = read_mutate(section);
        Some(Self { plugin: plugin?, mode, mutate, is_default: false })
    }

    /// The policy for untrusted code, as it is bound by default.
    pub(super) fn forks() -> Self {
        let plugin = PluginBinding {
            name: FORKS.to_owned(),
            source: PluginSource::Named("policy-forks".to_owned()),
            sha256: None,
            settings: serde_json::Value::Object(serde_json::Map::new()),
            lines: BindingLines { file: "default configuration".to_owned(), ..BindingLines::default() },
        };
        Self { plugin, mode: Mode::Enforce, mutate: BTreeMap::new(), is_default: true }
    }
}

impl NotifierBinding {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let plugin = PluginBinding::read(section);
        let grants = read_grants(section);
        Some(Self { plugin: plugin?, grants })
    }
}

/// A value with a slash or the extension `.wasm` is a path; any other value is the name of a plugin.
fn plugin_source(section: &Section<'_, '_>, plugin: String) -> PluginSource {
    let is_wasm = std::path::Path::new(&plugin).extension().is_some_and(|extension| extension == "wasm");
    if plugin.contains('/') || is_wasm { PluginSource::File(section.base().join(plugin)) } else { PluginSource::Named(plugin) }
}

fn read_settings(section: &mut Section<'_, '_>, lines: &mut BTreeMap<String, u32>) -> serde_json::Value {
    let empty = || serde_json::Value::Object(serde_json::Map::new());
    let Some(node) = section.take_node("settings") else { return empty() };
    let range = node.span();
    if !matches!(node.get_ref(), DeValue::Table(_)) {
        section.wrong_value("settings", &range, "expected a table such as { url = \"…\" }");
        return empty();
    }
    record_lines(section, &node, String::new(), lines);
    match json(node.get_ref()) {
        Ok(settings) => {
            let origin = section.origin(&range);
            section.record("settings", shown(&settings).to_string(), origin);
            settings
        }
        Err(message) => {
            section.wrong_value("settings", &range, message);
            empty()
        }
    }
}

/// Records the line of each value below `node` by its JSON pointer.
fn record_lines(section: &Section<'_, '_>, node: &Node<'_>, pointer: String, lines: &mut BTreeMap<String, u32>) {
    match node.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                let key = key.get_ref().replace('~', "~0").replace('/', "~1");
                record_lines(section, value, format!("{pointer}/{key}"), lines);
            }
        }
        DeValue::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                record_lines(section, value, format!("{pointer}/{index}"), lines);
            }
        }
        _ => {}
    }
    lines.insert(pointer, section.line_of(&node.span()));
}

/// The settings without the paths of URLs, because the path of a webhook is often a credential.
fn shown(settings: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value::{Array, Object, String};
    match settings {
        String(text) => String(without_path(text).unwrap_or_else(|| text.clone())),
        Array(items) => Array(items.iter().map(shown).collect()),
        Object(pairs) => Object(pairs.iter().map(|(key, value)| (key.clone(), shown(value))).collect()),
        other => other.clone(),
    }
}

/// `https://host/…`; none if the text is not a URL with a path or a query.
fn without_path(text: &str) -> Option<String> {
    let url = url::Url::parse(text).ok().filter(url::Url::has_host)?;
    let has_more = url.path() != "/" || url.query().is_some() || !url.username().is_empty() || url.password().is_some();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    has_more.then(|| format!("{}://{}{port}/…", url.scheme(), url.host_str().unwrap_or_default()))
}

fn read_mutate(section: &mut Section<'_, '_>) -> BTreeMap<Point, Vec<String>> {
    let mut all = BTreeMap::new();
    let Some(node) = section.take_node("mutate") else { return all };
    let range = node.span();
    let DeValue::Table(table) = node.get_ref() else {
        section.wrong_value("mutate", &range, "expected a table such as { \"step.admit\" = [\"/containers/*/image\"] }");
        return all;
    };
    for (key, paths) in table {
        let point = Point::MUTABLE.into_iter().find(|point| point.as_str() == key.get_ref());
        let Some(point) = point else {
            section.wrong_value("mutate", &key.span(), "expected `pipeline.admit` or `step.admit`");
            continue;
        };
        let Some(paths) = string_list(section, "mutate", paths) else { continue };
        if paths.iter().all(|path| path.starts_with('/')) {
            all.insert(point, paths);
        } else {
            section.wrong_value("mutate", &range, "expected paths that begin with `/`");
        }
    }
    let shown: Vec<String> = all.iter().map(|(point, paths)| format!("{}: {}", point.as_str(), paths.join(", "))).collect();
    let origin = section.origin(&range);
    section.record("mutate", shown.join("; "), origin);
    all
}

fn read_grants(section: &mut Section<'_, '_>) -> Grants {
    let mut grants = Grants::default();
    let Some(node) = section.take_node("grants") else { return grants };
    let range = node.span();
    let DeValue::Table(table) = node.get_ref() else {
        section.wrong_value("grants", &range, "expected a table such as { hosts = [\"https://hooks.example.org\"] }");
        return grants;
    };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "hosts" => grants.hosts = read_hosts(section, value),
            "secrets" => grants.secrets = string_list(section, "grants.secrets", value).unwrap_or_default(),
            "kv" => match value.get_ref() {
                DeValue::Boolean(kv) => grants.kv = *kv,
                _ => section.wrong_value("grants.kv", &value.span(), "expected true or false"),
            },
            other => {
                let help = did_you_mean(other, ["hosts", "secrets", "kv"].into_iter());
                section.wrong_value("grants", &key.span(), &format!("unknown key `{other}`: {help}"));
            }
        }
    }
    let hosts: Vec<&str> = grants.hosts.iter().map(|grant| grant.url.as_str()).collect();
    let origin = section.origin(&range);
    section.record(
        "grants",
        format!("hosts: {}; secrets: {}; kv: {}", hosts.join(", "), grants.secrets.join(", "), grants.kv),
        origin,
    );
    grants
}

fn read_hosts(section: &mut Section<'_, '_>, node: &Node<'_>) -> Vec<HostGrant> {
    let DeValue::Array(items) = node.get_ref() else {
        section.wrong_value("grants.hosts", &node.span(), "expected a list");
        return Vec::new();
    };
    let mut hosts = Vec::new();
    for item in items {
        if let Some(key) = unknown_key(item.get_ref()) {
            let help = did_you_mean(key.get_ref(), HOST_KEYS.into_iter());
            section.wrong_value("grants.hosts", &key.span(), &format!("unknown key `{}`: {help}", key.get_ref()));
            continue;
        }
        match host(item.get_ref()) {
            Some(host) => hosts.push(host),
            None => section.wrong_value(
                "grants.hosts",
                &item.span(),
                "expected \"https://HOST\" or \
                 { url = \"http://HOST:PORT\", addresses = \"public\" | \"private\" | \"loopback\" }",
            ),
        }
    }
    hosts
}

const HOST_KEYS: [&str; 2] = ["url", "addresses"];

fn unknown_key<'v, 't>(value: &'v DeValue<'t>) -> Option<&'v toml::Spanned<DeString<'t>>> {
    let DeValue::Table(table) = value else { return None };
    table.keys().find(|key| !HOST_KEYS.contains(&key.get_ref().as_ref()))
}

fn host(value: &DeValue<'_>) -> Option<HostGrant> {
    let (url, addresses) = match value {
        DeValue::String(url) => (url.as_ref(), AddressClass::Public),
        DeValue::Table(table) => {
            let text = |key: &str| table.get(key).and_then(|node| node.get_ref().as_str());
            let addresses = match text("addresses") {
                Some("public") => AddressClass::Public,
                Some("private") => AddressClass::Private,
                Some("loopback") => AddressClass::Loopback,
                Some(_) => return None,
                None if table.contains_key("addresses") => return None,
                None => AddressClass::Public,
            };
            (text("url")?, addresses)
        }
        _ => return None,
    };
    let url = <url::Url as Value>::parse(url)?;
    (url.path() == "/").then_some(HostGrant { url, addresses })
}

fn string_list(section: &mut Section<'_, '_>, key: &str, node: &Node<'_>) -> Option<Vec<String>> {
    let items = match node.get_ref() {
        DeValue::Array(items) => items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    if items.is_none() {
        section.wrong_value(key, &node.span(), "expected a list of strings");
    }
    items
}

/// Converts TOML to JSON. Dates are refused, and so are numbers that JSON cannot represent.
fn json(value: &DeValue<'_>) -> Result<serde_json::Value, &'static str> {
    Ok(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| "number too large")?.into(),
        DeValue::Float(number) => number.as_str().parse::<f64>().ok().filter(|n| n.is_finite()).ok_or("not a number")?.into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(_) => return Err("write dates as strings"),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect::<Result<Vec<_>, _>>()?.into(),
        DeValue::Table(table) => {
            let pairs = table.iter().map(|(key, item)| Ok((key.get_ref().to_string(), json(item.get_ref())?)));
            serde_json::Value::Object(pairs.collect::<Result<_, &'static str>>()?)
        }
    })
}
