//! The container of an `image:` step, apart from its image and program.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Limits that the pipeline file sets. Those of the instance apply where they are lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerLimits {
    /// CPU time, in thousandths of a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Number of processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl ContainerLimits {
    /// Whether there is no limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A network other than the stage's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherNetwork {
    /// No network: only the container's own loopback interface.
    None,
    /// The network of the engine's machine. The baseline policy denies it.
    Host,
}

/// A value in `settings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Text, number, truth value, list or map. Numbers that are not whole keep their spelling as text.
    Value(Json),
    FromSecret(String),
}

impl Setting {
    /// The text of the variable, as Drone and Woodpecker encode it: a list of plain values is joined with commas, and everything
    /// with parts of its own is JSON. `None` for no value and for a secret.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Value(Json::Array(items)) if items.iter().all(is_plain) => {
                Some(items.iter().map(plain_text).collect::<Vec<_>>().join(","))
            }
            Self::Value(value @ (Json::Array(_) | Json::Object(_))) => Some(value.to_string()),
            Self::Value(Json::Null) | Self::FromSecret(_) => None,
            Self::Value(plain) => Some(plain_text(plain)),
        }
    }
}

fn is_plain(value: &Json) -> bool {
    !matches!(value, Json::Array(_) | Json::Object(_))
}

fn plain_text(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The variable of a setting: `build-args` becomes `PLUGIN_BUILD_ARGS`.
#[must_use]
pub fn setting_variable(name: &str) -> String {
    format!("PLUGIN_{}", name.to_uppercase().replace(['-', '.'], "_"))
}

/// Drone's name of the same variable, if it is another one: Drone keeps `-` and `.`, which no shell can read but programs can.
#[must_use]
pub fn setting_variable_of_drone(name: &str) -> Option<String> {
    let variable = format!("PLUGIN_{}", name.to_uppercase());
    (variable != setting_variable(name)).then_some(variable)
}

/// Whether a text is `user` or `user:group`, as names or numbers.
#[must_use]
pub fn is_user(user: &str) -> bool {
    let is_name = |name: &str| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
            && !name.starts_with('-')
    };
    user.split_once(':').map_or_else(|| is_name(user), |(user, group)| is_name(user) && is_name(group))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_encoded_as_plugins_expect() {
        let text = |value: Json| Setting::Value(value).text();
        assert_eq!(text(json!("a b")).as_deref(), Some("a b"));
        assert_eq!(text(json!(true)).as_deref(), Some("true"));
        assert_eq!(text(json!(7)).as_deref(), Some("7"));
        assert_eq!(text(json!(["a", 1, false])).as_deref(), Some("a,1,false"));
        assert_eq!(text(json!([])).as_deref(), Some(""));
        assert_eq!(text(json!({ "b": [1], "a": "x" })).as_deref(), Some(r#"{"b":[1],"a":"x"}"#));
        assert_eq!(text(json!([{ "a": 1 }, "b"])).as_deref(), Some(r#"[{"a":1},"b"]"#));
        assert_eq!(text(json!(null)), None);
    }

    #[test]
    fn a_setting_with_a_dash_has_two_variables() {
        assert_eq!(setting_variable("build-args"), "PLUGIN_BUILD_ARGS");
        assert_eq!(setting_variable_of_drone("build-args").as_deref(), Some("PLUGIN_BUILD-ARGS"));
        assert_eq!(setting_variable_of_drone("repo"), None);
    }
}
