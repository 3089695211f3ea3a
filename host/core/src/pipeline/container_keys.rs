//! Parser for the keys of an `image:` step that describe its container: `user`, `limits`, `shell`, `settings`, `privileged`,
//! `network`, `devices` and `tmpfs`.

use std::collections::BTreeMap;

use super::container::{ContainerLimits, OtherNetwork, Setting, is_user, setting_variable};
use super::decode::{Fields, Reader};
use super::diagnostics::{join_words, quote};
use super::keywords::{FOREIGN_NETWORKS, LIMITS};
use super::spans::YamlPath;
use super::substitution::sample;
use super::yaml::{MapEntry, Node, Scalar, Value};
use crate::units::{parse_cpus, parse_size};

/// Shells that understand the script, which Beespace writes in the language of POSIX shells.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"];

/// Docker refuses to start a container with less memory.
const LEAST_MEMORY: u64 = 6 << 20;

/// Most devices or `tmpfs` mounts of a container.
const MAX_ENTRIES: usize = 32;

/// Most settings of a container.
const MAX_SETTINGS: usize = 256;

impl Reader {
    /// `user`: a name or number, optionally with a group.
    pub(super) fn user(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<String> {
        path.child("user").record(&mut self.spans, entry.value.span);
        let user = self.text(&entry.value, "`user` to be a name or number, optionally with a group, such as `1000:1000`")?;
        if is_user(&sample(&user)) {
            return Some(user);
        }
        let message = format!("{} is not a valid user", quote(&user));
        self.diagnostics.add_with_help("bad-value", entry.value.span, message, "for example `node`, `1000` or `1000:1000`");
        None
    }

    /// `limits`: at least one of `cpu`, `memory` and `pids`.
    pub(super) fn limits(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<ContainerLimits> {
        let path = path.child("limits");
        path.record(&mut self.spans, entry.value.span);
        let fields = self.fields(&entry.value, "`limits` to be a map such as `{ cpu: 2, memory: 2GiB, pids: 512 }`", &LIMITS)?;
        if fields.is_empty() {
            self.diagnostics.add("bad-value", entry.value.span, "`limits` has no limit: add one, or remove it");
        }
        Some(ContainerLimits {
            cpu_millis: fields.get("cpu").and_then(|entry| self.cpu(entry, &path)),
            memory_bytes: fields.get("memory").and_then(|entry| self.memory(entry, &path)),
            pids: fields.get("pids").and_then(|entry| self.pids(entry, &path)),
        })
    }

    fn cpu(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<u32> {
        const EXPECTED: &str = "`cpu` to be a number of CPUs such as `2` or `0.5`";
        path.child("cpu_millis").record(&mut self.spans, entry.value.span);
        let millis = parse_cpus(&self.text(&entry.value, EXPECTED)?);
        if millis.is_none() {
            self.wrong_type(&entry.value, EXPECTED);
        }
        millis
    }

    fn memory(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<u64> {
        let expected = format!("`memory` to be {}", crate::units::SIZE_EXPECTED);
        path.child("memory_bytes").record(&mut self.spans, entry.value.span);
        let bytes = parse_size(&self.text(&entry.value, &expected)?);
        match bytes {
            Some(bytes) if bytes >= LEAST_MEMORY => return Some(bytes),
            Some(_) => self.diagnostics.add("bad-value", entry.value.span, "`memory` must be at least 6MiB"),
            None => self.wrong_type(&entry.value, &expected),
        }
        None
    }

    fn pids(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<u32> {
        const EXPECTED: &str = "`pids` to be a number of processes above 0";
        path.child("pids").record(&mut self.spans, entry.value.span);
        let text = self.text(&entry.value, EXPECTED)?;
        let pids = text.parse().ok().filter(|pids: &u32| *pids > 0 && text.bytes().all(|b| b.is_ascii_digit()));
        if pids.is_none() {
            self.wrong_type(&entry.value, EXPECTED);
        }
        pids
    }

    /// `shell`: the program that runs the script, with its options. It needs `run`.
    pub(super) fn shell(&mut self, entry: &MapEntry, fields: Fields<'_>, path: &YamlPath) -> Option<Vec<String>> {
        let span = entry.value.span;
        path.child("shell").record(&mut self.spans, span);
        if fields.get("run").is_none() && !fields.has_typo_of("run") {
            let message = "`shell` requires `run`: it is the shell of the script";
            self.diagnostics.add("conflict", entry.key_span, message);
        }
        let text = match &entry.value.value {
            Value::List(_) => {
                let words = self.texts(&entry.value, "`shell` to be a shell with its options, such as `bash -eo pipefail`")?;
                words.into_iter().map(|(_, word)| word).collect()
            }
            _ => {
                let text = self.text(&entry.value, "`shell` to be a shell with its options, such as `bash -eo pipefail`")?;
                text.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>()
            }
        };
        let program = text.first().map_or("", |word| word.rsplit('/').next().unwrap_or_default());
        if SHELLS.contains(&program) {
            return Some(text);
        }
        let shells: Vec<String> = SHELLS.iter().map(|shell| format!("`{shell}`")).collect();
        let message = format!("{} is not a supported shell: expected {}", quote(program), join_words(&shells, "or"));
        let help = "to run a script in another language, start its program in `run`, or use `entrypoint` and `args`";
        self.diagnostics.add_with_help("bad-value", span, message, help);
        None
    }

    /// `settings`: each becomes a variable `PLUGIN_NAME`.
    pub(super) fn settings(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<BTreeMap<String, Setting>> {
        let path = path.child("settings");
        path.record(&mut self.spans, entry.value.span);
        let Value::Map(entries) = &entry.value.value else {
            self.wrong_type(&entry.value, "`settings` to be a map");
            return None;
        };
        if entries.len() > MAX_SETTINGS {
            let message = format!("the step has more than {MAX_SETTINGS} settings");
            self.diagnostics.add("too-large", entry.key_span, message);
            return None;
        }
        let mut settings = BTreeMap::new();
        let mut variables: BTreeMap<String, &str> = BTreeMap::new();
        for entry in entries {
            self.check_setting_name(entry);
            if let Some(other) = variables.insert(setting_variable(&entry.key), &entry.key) {
                let variable = setting_variable(&entry.key);
                let message = format!("{} and {} are the same variable, {variable}", quote(other), quote(&entry.key));
                self.diagnostics.add_with_help("duplicate-key", entry.key_span, message, "remove one of them");
            }
            if let Some(setting) = self.setting(&entry.value, &path.child(&entry.key)) {
                settings.insert(entry.key.clone(), setting);
            }
        }
        Some(settings)
    }

    fn check_setting_name(&mut self, entry: &MapEntry) {
        let is_name = entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if (!is_name || entry.key.is_empty()) && !self.diagnostics.has_diagnostic_at(entry.key_span) {
            let message = format!("{} is not a valid name for a setting", quote(&entry.key));
            let help = "a name has letters, digits, `_`, `-` and `.`; it becomes a variable `PLUGIN_NAME`";
            self.diagnostics.add_with_help("bad-value", entry.key_span, message, help);
        }
    }

    fn setting(&mut self, node: &Node, path: &YamlPath) -> Option<Setting> {
        if let Value::Map(entries) = &node.value
            && entries.iter().any(|entry| entry.key == "from_secret")
        {
            path.record(&mut self.spans, node.span);
            return self.secret_reference(node).map(Setting::FromSecret);
        }
        self.refuse_inner_secrets(node);
        Some(Setting::Value(self.json(node, path)))
    }

    /// A secret inside a list or map would have to be put into the text of a variable that policies and approvers see.
    fn refuse_inner_secrets(&mut self, node: &Node) {
        let inner: Vec<&Node> = match &node.value {
            Value::List(items) => items.iter().collect(),
            Value::Map(entries) => {
                if let Some(secret) = entries.iter().find(|entry| entry.key == "from_secret") {
                    let message = "`from_secret` inside a list or map is not supported";
                    let help = "make the secret the value of a setting: `NAME: { from_secret: … }`";
                    self.diagnostics.add_with_help("bad-value", secret.key_span, message, help);
                }
                entries.iter().map(|entry| &entry.value).collect()
            }
            Value::Null | Value::Scalar(_) => Vec::new(),
        };
        for node in inner {
            self.refuse_inner_secrets(node);
        }
    }

    /// `network`: none, or that of the machine. Without the key, a step is in the stage's network.
    pub(super) fn network(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<OtherNetwork> {
        let words = [("none", OtherNetwork::None), ("host", OtherNetwork::Host)];
        self.keyword_of(entry, path, &words, FOREIGN_NETWORKS)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, entry: &MapEntry, path: &YamlPath) -> bool {
        path.child(&entry.key).record(&mut self.spans, entry.value.span);
        match &entry.value.value {
            Value::Scalar(Scalar { text, is_plain: true }) if text == "true" => true,
            Value::Scalar(Scalar { text, is_plain: true }) if text == "false" => false,
            _ => {
                self.wrong_type(&entry.value, &format!("`{}` to be `true` or `false`", entry.key));
                false
            }
        }
    }

    /// `devices`: paths below `/dev` on the engine's machine.
    pub(super) fn devices(&mut self, entry: &MapEntry, path: &YamlPath) -> Vec<String> {
        let path = path.child("devices");
        let Some(devices) = self.text_list(&entry.value, "`devices` to be a list of paths such as `/dev/kvm`", &path) else {
            return Vec::new();
        };
        self.check_count(entry, devices.len());
        for device in &devices {
            if !device.starts_with("/dev/") || device.split('/').any(|part| part == "..") {
                let message = format!("{} is not the path of a device", quote(device));
                self.diagnostics.add_with_help("bad-value", entry.value.span, message, "for example `/dev/kvm`");
            }
        }
        devices
    }

    /// `tmpfs`: a list of directories, or a map from directories to sizes.
    pub(super) fn tmpfs(&mut self, entry: &MapEntry, path: &YamlPath) -> BTreeMap<String, Option<u64>> {
        const EXPECTED: &str = "`tmpfs` to be a list of directories, or a map such as `{ /tmp/work: 512MiB }`";
        let path = path.child("tmpfs");
        path.record(&mut self.spans, entry.value.span);
        let mut mounts = BTreeMap::new();
        match &entry.value.value {
            Value::Map(entries) => {
                for entry in entries {
                    let size = self.tmpfs_size(entry, &path);
                    mounts.insert(entry.key.clone(), size);
                }
            }
            _ => {
                let directories = self.texts(&entry.value, EXPECTED).unwrap_or_default();
                mounts.extend(directories.into_iter().map(|(_, directory)| (directory, None)));
            }
        }
        self.check_count(entry, mounts.len());
        for directory in mounts.keys().filter(|directory| !directory.starts_with('/')) {
            let message = format!("{} is not an absolute path", quote(directory));
            self.diagnostics.add_with_help("bad-value", entry.value.span, message, "for example `/tmp/work`");
        }
        mounts
    }

    fn tmpfs_size(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<u64> {
        path.child(&entry.key).record(&mut self.spans, entry.value.span);
        let expected = format!("the size of a `tmpfs` to be {}", crate::units::SIZE_EXPECTED);
        let size = parse_size(&self.text(&entry.value, &expected)?).filter(|size| *size > 0);
        if size.is_none() {
            self.wrong_type(&entry.value, &expected);
        }
        size
    }

    fn check_count(&mut self, entry: &MapEntry, count: usize) {
        if count > MAX_ENTRIES {
            let message = format!("`{}` has {count} entries; at most {MAX_ENTRIES} are allowed", entry.key);
            self.diagnostics.add("too-large", entry.key_span, message);
        }
    }
}
