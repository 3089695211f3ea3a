//! Settings that name a host or a secret, which the grants of the binding must contain. A manifest marks such a setting in its
//! JSON Schema with `"x-grant": "hosts"` or `"x-grant": "secrets"`. A binding that can never work is thus found when it is
//! loaded, and not when the first notice is sent.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::diagnostic::PluginDiagnostic;
use crate::egress::address_filter::classify;
use crate::grant::{AddressClass, EgressRule, Grants, NeededGrant};
use crate::sanitize::sanitize;

/// The keyword of a schema that marks a setting.
const KEYWORD: &str = "x-grant";

/// Every marked setting whose value the grants do not contain, and the kind of the grant.
pub(crate) fn uncovered(schema: &Value, settings: &Value, grants: &Grants) -> Vec<(NeededGrant, PluginDiagnostic)> {
    let mut found = Vec::new();
    visit(schema, settings, "", &mut |pointer, mark, text| {
        let problem = match mark {
            "hosts" => host_problem(text, &grants.egress).map(|problem| (NeededGrant::Hosts, problem)),
            "secrets" => secret_problem(text, grants).map(|problem| (NeededGrant::Secrets, problem)),
            _ => None,
        };
        let diagnostic = |message: String| PluginDiagnostic::at(pointer.to_owned(), sanitize(&message, 2 << 10));
        found.extend(problem.map(|(grant, message)| (grant, diagnostic(message))));
    });
    found
}

/// Calls `check` with the JSON pointer, the mark and the value of every marked text.
fn visit(schema: &Value, value: &Value, pointer: &str, check: &mut impl FnMut(&str, &str, &str)) {
    match value {
        Value::String(text) => {
            if let Some(mark) = schema.get(KEYWORD).and_then(Value::as_str) {
                check(pointer, mark, text);
            }
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                if let Some(schema) = schema.get("properties").and_then(|properties| properties.get(key)) {
                    visit(schema, value, &format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")), check);
                }
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                if let Some(schema) = schema.get("items") {
                    visit(schema, value, &format!("{pointer}/{index}"), check);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Why no rule permits requests to this URL. A text that is not a URL is left to the schema and the plugin.
fn host_problem(url: &str, rules: &[EgressRule]) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    // Without the path, which may be a credential.
    let origin = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
    let target = EgressRule::parse(&origin, AddressClass::Public).ok()?;
    let class = match address(&target.host).map(classify) {
        Some(None) => return Some(format!("no plugin may send requests to {origin}")),
        known => known.flatten(),
    };
    let rule = rules.iter().find(|rule| rule.covers(target.scheme, &target.host, target.port));
    if rule.is_some_and(|rule| class.is_none_or(|class| class == rule.class)) {
        return None;
    }
    let grant = match class {
        None | Some(AddressClass::Public) => format!("\"{origin}\""),
        Some(class) => format!("{{ url = \"{origin}\", addresses = \"{}\" }}", class.as_str()),
    };
    Some(match class.filter(|_| rule.is_some()) {
        Some(class) => {
            format!("{origin} has a {} address, which `grants.hosts` does not allow: write {grant} there", class.as_str())
        }
        None => format!("`grants.hosts` does not contain {origin}: add {grant}"),
    })
}

/// The address of a host that needs no lookup. A name may resolve to any address.
fn address(host: &str) -> Option<IpAddr> {
    if host == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { host.parse().ok() }
}

fn secret_problem(name: &str, grants: &Grants) -> Option<String> {
    (!grants.secrets.contains(name)).then(|| format!("`grants.secrets` does not contain {name:?}: add it"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grants(hosts: &[(&str, AddressClass)]) -> Grants {
        let egress = hosts.iter().map(|(host, class)| EgressRule::parse(host, *class).unwrap()).collect();
        Grants { egress, secrets: ["key".to_owned()].into(), ..Grants::default() }
    }

    #[test]
    fn a_host_must_be_granted_with_the_class_of_its_address() {
        use AddressClass::{Loopback, Private, Public};
        let hooks = grants(&[
            ("https://hooks.example", Public),
            ("http://127.0.0.1:1", Public),
            ("http://10.0.0.7", Private),
            ("http://localhost:2", Loopback),
        ]);
        for (url, expected) in [
            ("https://hooks.example/services/SECRET", None),
            ("http://10.0.0.7/x", None),
            ("http://localhost:2", None),
            ("not a url", None),
            (
                "https://other.example/SECRET",
                Some("`grants.hosts` does not contain https://other.example: add \"https://other.example\""),
            ),
            (
                "http://[::1]:9000/x",
                Some(
                    "`grants.hosts` does not contain http://[::1]:9000: add { url = \"http://[::1]:9000\", addresses = \
                     \"loopback\" }",
                ),
            ),
            (
                "http://127.0.0.1:1/x",
                Some(
                    "http://127.0.0.1:1 has a loopback address, which `grants.hosts` does not allow: write { url = \
                     \"http://127.0.0.1:1\", addresses = \"loopback\" } there",
                ),
            ),
            ("http://169.254.169.254/", Some("no plugin may send requests to http://169.254.169.254")),
        ] {
            assert_eq!(host_problem(url, &hooks.egress).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn marked_settings_are_found_at_any_depth() {
        let of_secret = json!({ "type": "string", "x-grant": "secrets" });
        let schema = json!({ "properties": {
            "a": of_secret,
            "free": { "type": "string" },
            "list": { "items": { "properties": { "b/c": of_secret } } },
        } });
        let settings = json!({ "a": "key", "free": "x", "list": [{ "b/c": "key" }, { "b/c": "other" }] });
        let found = uncovered(&schema, &settings, &grants(&[]));
        let [(NeededGrant::Secrets, problem)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(problem.to_string(), "/list/1/b~1c: `grants.secrets` does not contain \"other\": add it");
    }
}
