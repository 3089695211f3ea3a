//! `beespace.toml`, environment variables, and the messages for mistakes in them.

use std::time::Duration;

use beespace::config::{AddressClass, Config, EngineKind, Origin, PluginSource};
use beespace_core::policy::{Mode, Point};
use secrecy::ExposeSecret as _;

const SMALL: &str = "[gogs]\nurl = \"http://gogs.local:3000\"\ntoken = \"t0ken\"\n";

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn problems(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    Config::read(text, None, env(pairs)).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn each_setting_of_a_plugin_has_its_line() {
    let text = format!(
        "{SMALL}[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\n\
         [policy.settings]\nregistries = [\n  \"a\",\n  \"b\",\n]\n"
    );
    let lines = &Config::read(&text, None, env(&[])).unwrap().config.policies[0].plugin.lines;
    assert_eq!(lines.of_binding(), "beespace.toml:4");
    for (pointer, line) in [("/registries", 8), ("/registries/0", 9), ("/registries/1", 10), ("/registries/1/more", 10)] {
        assert_eq!(lines.of_setting(pointer), format!("beespace.toml:{line}"), "{pointer}");
    }
    assert_eq!(lines.of_setting("/missing"), lines.of_setting(""), "a key that is missing is reported at the table");
}

#[test]
fn the_path_of_a_webhook_is_not_shown() {
    let text = format!(
        "{SMALL}[[notifier]]\nname = \"chat\"\nplugin = \"notify-webhook\"\n\
         settings = {{ url = \"https://hooks.example:8443/services/T0/SECRETPART?k=v\", secret = \"key\", \
         more = [\"https://x.example\"] }}\n"
    );
    let loaded = Config::read(&text, None, env(&[])).unwrap();
    let shown = loaded.entries.iter().find(|entry| entry.key == "notifier.chat.settings").unwrap().value.as_ref().unwrap();
    assert_eq!(shown, r#"{"more":["https://x.example"],"secret":"key","url":"https://hooks.example:8443/…"}"#);
    assert!(loaded.config.notifiers[0].plugin.settings.to_string().contains("SECRETPART"), "the plugin gets all of it");
}

#[test]
fn a_minimal_file_is_enough() {
    let config = Config::read(SMALL, None, env(&[])).unwrap().config;
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.server.public_url.as_str(), "http://127.0.0.1:8000/");
    assert!(!config.server.open);
    let EngineKind::Docker(docker) = &config.engine.kind else { panic!("{:?}", config.engine) };
    assert_eq!((config.engine.capacity.get(), docker.prewarmed_networks, docker.metadata_access), (2, 2, false));
    assert_eq!(config.limits.log_bytes, 1 << 30);
    assert_eq!(config.retention.builds, None, "by default nothing is removed");
}

#[test]
fn the_configuration_of_the_design_is_accepted() {
    let text = r#"
[server]
listen = "127.0.0.1:8000"
public_url = "https://ci.example.org"
hook_url = "http://10.0.0.5:8000"
open = true
[data]
dir = "/srv/beespace"
[gogs]
url = "http://gogs.local:3000"
token = "t"
[engine]
kind = "dummy"
capacity = 4
labels = "gpu=true, zone=a"
prewarmed_networks = 0
network_pool = "10.200.0.0/16"
metadata_access = true
[limits]
stage_timeout = "1h30m"
step_memory = "512MiB"
step_pids = 64
log_bytes = "1MiB"
free_disk = "2GB"
[retention]
builds = "90d"
[[policy]]
name = "images"
plugin = "policy-images"
mode = "warn"
settings = { registries = ["registry.example"], depth = 3 }
mutate = { "step.admit" = ["/containers/*/image"] }
[[step]]
name = "check"
plugin = "./step-check.wasm"
sha256 = "0000000000000000000000000000000000000000000000000000000000000001"
[[notifier]]
name = "hook"
plugin = "notify-webhook"
settings = { url = "https://hooks.example.org/x" }
grants.hosts = ["https://hooks.example.org", { url = "http://127.0.0.1:9000", addresses = "loopback" }]
grants.secrets = ["hook-key"]
[[notifier]]
name = "chat"
plugin = "notify-webhook"
settings = { url = "https://chat.example.org/x" }
grants = { kv = true }
"#;
    let config = Config::read(text, Some("/etc/beespace/beespace.toml".into()), env(&[])).unwrap().config;
    let [policy, forks] = &*config.policies else { panic!("one policy, and the default one") };
    assert!(forks.is_default && forks.mode == Mode::Enforce && !policy.is_default);
    assert_eq!(config.engine.labels["gpu"], "true");
    assert_eq!(config.engine.labels.len(), 2);
    assert_eq!(config.retention.builds, Some(Duration::from_secs(90 * 86_400)));
    assert_eq!(policy.mode, Mode::Warn);
    assert_eq!(policy.plugin.settings.to_string(), r#"{"depth":3,"registries":["registry.example"]}"#);
    assert_eq!(policy.mutate[&Point::StepAdmit], ["/containers/*/image"]);
    assert_eq!(config.steps[0].source, PluginSource::File("/etc/beespace/./step-check.wasm".into()));
    assert_eq!(config.notifiers[0].grants.hosts[1].addresses, AddressClass::Loopback);
    assert_eq!(config.notifiers[0].grants.secrets, ["hook-key"]);
    assert_eq!(config.notifiers.iter().map(|one| one.grants.kv).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn the_environment_overrides_the_file_and_is_recorded_as_origin() {
    let loaded = Config::read(SMALL, None, env(&[("BEESPACE_SERVER__LISTEN", "[::1]:9000"), ("BEESPACE_SERVER", "x")])).unwrap();
    assert_eq!(loaded.config.server.listen.to_string(), "[::1]:9000");
    let origin = |key: &str| loaded.entries.iter().find(|entry| entry.key == key).unwrap().origin.clone();
    assert_eq!(origin("server.listen"), Origin::Env("BEESPACE_SERVER__LISTEN".to_owned()));
    assert_eq!(origin("gogs.url"), Origin::File { line: 2 });
    assert_eq!(origin("engine.kind"), Origin::Default);
}

#[test]
fn all_problems_are_reported_at_once_with_their_position() {
    let text = "[server]\nlisten = \"nowhere\"\nopne = true\n[engin]\nkind = 1\n[gogs]\nurl = \"ftp://x\"\ntoken = \
    \"t\"\n[limits]\nfree_disk = 5\n";
    let env = [
        ("BEESPACE_SERVER__LISTENN", "x"),
        ("BEESPACE_ENGINE__CAPACITY", "0"),
        ("BEESPACE_ENGINE__NETWORK_POOL", "10.200.0.1/16"),
    ];
    let reported = problems(text, &env);
    for expected in [
        "beespace.toml:2:10: `server.listen`: expected ADDRESS:PORT",
        "beespace.toml:3:1: unknown key `opne` in `server` (did you mean `open`?)",
        "beespace.toml:4:2: unknown section `engin` (did you mean `engine`?)",
        "beespace.toml:7:7: `gogs.url`: expected a URL",
        "beespace.toml:10:13: `limits.free_disk`: expected a size such as `512MiB` or `2GB`, in quotes",
        "env BEESPACE_SERVER__LISTENN: unknown configuration key (did you mean `BEESPACE_SERVER__LISTEN`?)",
        "env BEESPACE_ENGINE__CAPACITY: expected a whole number from 1 to 65535",
        "env BEESPACE_ENGINE__NETWORK_POOL: expected the addresses of a private network",
    ] {
        assert!(reported.iter().any(|line| line.starts_with(expected)), "{expected}\n{reported:#?}");
    }
}

#[test]
fn messages_name_the_accepted_values_once() {
    let reported = problems("[engine]\nkind = \"podman\"\ncapacity = \"2\"\n[gogs]\nurl = \"http://g\"\ntoken = \"t\"\n", &[]);
    assert!(reported[0].contains("`docker` (Docker, or Podman through its Docker-compatible socket"), "{reported:?}");
    assert_eq!(reported[1], "beespace.toml:3:12: `engine.capacity`: expected a whole number from 1 to 65535");
}

#[test]
fn commands_reach_a_server_on_all_addresses_at_the_loopback_one() {
    for (listen, local) in [("0.0.0.0:8000", "http://127.0.0.1:8000/"), ("[::]:8000", "http://[::1]:8000/")] {
        let text = format!("{SMALL}[server]\nlisten = \"{listen}\"\npublic_url = \"http://ci.example.org:8000\"\n");
        let config = Config::read(&text, None, env(&[])).unwrap().config;
        assert_eq!(config.server.local_url.as_str(), local);
    }
}

#[test]
fn a_default_timeout_must_not_exceed_the_longest_one() {
    let reported = problems(&format!("{SMALL}[limits]\nstage_timeout = \"30m\"\nstage_timeout_default = \"1h\"\n"), &[]);
    let [problem] = &*reported else { panic!("{reported:#?}") };
    assert!(problem.contains("`limits.stage_timeout_default` must not be longer than `limits.stage_timeout`"), "{problem}");
    let limits = |text: &str| Config::read(&format!("{SMALL}[limits]\n{text}"), None, env(&[])).unwrap().config.limits;
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let usual = limits("step_cpu = \"0.5\"\n");
    assert_eq!((usual.timeout_of_stage(None), usual.timeout_of_stage(Some(hours(48)))), (hours(1), hours(6)));
    assert_eq!(usual.of_container().cpu_millis, Some(500));
    assert_eq!(limits("stage_timeout = \"30m\"\n").timeout_of_stage(None), Duration::from_secs(1_800));
}

#[test]
fn a_planned_plugin_kind_is_distinguished_from_a_typo() {
    let reported = problems(&format!("{SMALL}[[converter]]\nname = \"drone\"\nplugin = \"drone\"\n"), &[]);
    let [problem] = &*reported else { panic!("{reported:#?}") };
    assert!(problem.contains("`converter` is not supported yet"), "{problem}");
}

#[test]
fn a_missing_value_is_reported_with_how_to_set_it() {
    let reported = problems("", &[]);
    assert_eq!(reported.len(), 2, "{reported:#?}");
    assert!(
        reported[0].contains("`gogs.url` is missing (for example: url = \"http://gogs.local:3000\", or set BEESPACE_GOGS__URL)"),
        "{reported:#?}"
    );
    assert!(reported[1].contains("`gogs.token` is missing"), "{reported:#?}");
}

#[test]
fn bindings_are_validated() {
    let text = format!(
        "{SMALL}[[policy]]\nname = \"a\"\nplugin = \"p\"\nmode = \"strict\"\nmutate = \
         {{ \"build.admit\" = [] }}\n[[policy]]\nname = \"a\"\nplugin = \"p\"\n[[notifier]]\nname = \"n\"\n\
         grants = {{ hosts = [\"https://x.example/path\", {{ url = \"http://x.example\", adresses = \"private\" }}], \
         secret = [] }}\n"
    );
    let reported = problems(&text, &[]).join("\n");
    for expected in [
        ":7:8: `policy.a.mode`: expected `enforce`, `warn` or `shadow`",
        "`policy.a.mutate`: expected `pipeline.admit` or `step.admit`",
        "beespace.toml:10:8: two [[policy]] are named `a`; the first one is in line 5 (give each a unique name)",
        "`notifier.n.plugin` is missing",
        "`notifier.n.grants.hosts`: expected \"https://HOST\"",
        "`notifier.n.grants.hosts`: unknown key `adresses`: did you mean `addresses`?",
        "`notifier.n.grants`: unknown key `secret`: did you mean `secrets`?",
    ] {
        assert!(reported.contains(expected), "{expected}\n{reported}");
    }
}

#[test]
fn secrets_are_read_from_files_and_never_printed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "from-a-file\n").unwrap();
    let file = path.display().to_string();
    let loaded = Config::read(SMALL, None, env(&[("BEESPACE_GOGS__TOKEN_FILE", &file)])).unwrap();
    assert_eq!(loaded.config.gogs.token.expose_secret(), "from-a-file");
    assert!(!format!("{loaded:?}").contains("from-a-file"));
    assert!(!loaded.entries.iter().any(|entry| entry.value.as_ref().is_some_and(|value| value.contains("from-a-file"))));

    let reported = problems("[gogs]\nurl = \"http://g\"\ntoken_file = \"/nowhere/token\"\n", &[]);
    assert!(reported[0].contains("/nowhere/token could not be read"), "{reported:#?}");
}

#[test]
fn a_token_is_set_once_per_layer() {
    let both = "[gogs]\nurl = \"http://g\"\ntoken = \"t\"\ntoken_file = \"/nowhere/token\"\n";
    let expected = "`gogs.token` and `gogs.token_file` are both set (remove one of them)";
    assert_eq!(problems(both, &[]), [format!("beespace.toml:4:1: {expected}")]);
    let variables = [("BEESPACE_GOGS__TOKEN", "t"), ("BEESPACE_GOGS__TOKEN_FILE", "/nowhere/token")];
    assert_eq!(problems(SMALL, &variables), [format!("env BEESPACE_GOGS__TOKEN_FILE: {expected}")]);
    let overridden = "[gogs]\nurl = \"http://g\"\ntoken_file = \"/nowhere/token\"\n";
    let config = Config::read(overridden, None, env(&variables[..1])).unwrap().config;
    assert_eq!(config.gogs.token.expose_secret(), "t", "the environment takes precedence over the file");
}

#[test]
fn values_that_cannot_work_are_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let inside = file.path().join("data").display().to_string();
    for (section, key, value, expected) in [
        ("limits", "stage_timeout", "0s", "expected a duration above zero"),
        ("limits", "stage_timeout_default", "0m", "expected a duration above zero"),
        ("retention", "builds", "0d", "expected a duration above zero"),
        ("limits", "step_memory", "1MiB", "expected a size of at least 6MiB"),
        ("limits", "log_bytes", "0MiB", "expected a size above zero"),
        ("limits", "checkout_bytes", "0B", "expected a size above zero"),
        ("plugins", "component_bytes", "0B", "expected a size above zero"),
        ("engine", "network_pool", "9.0.0.0/16", "expected the addresses of a private network"),
        ("engine", "network_pool", "172.0.0.0/8", "expected the addresses of a private network"),
        ("data", "dir", "data", "expected an absolute path"),
        ("data", "key_file", "./key", "expected an absolute path"),
        ("data", "dir", &inside, "cannot be a directory, because "),
    ] {
        let reported = problems(&format!("{SMALL}[{section}]\n{key} = {value:?}\n"), &[]);
        let [problem] = &*reported else { panic!("{section}.{key}: {reported:#?}") };
        assert!(problem.starts_with("beespace.toml:5:"), "{problem}");
        assert!(problem.contains(&format!("`{section}.{key}`")) && problem.contains(expected), "{problem}");
    }
    for pool in ["10.200.0.0/16", "192.168.0.0/16", "100.64.0.0/10", "198.19.0.0/17"] {
        Config::read(&format!("{SMALL}[engine]\nnetwork_pool = \"{pool}\"\n"), None, env(&[])).unwrap();
    }
}

#[test]
fn relative_paths_of_files_begin_at_the_configuration_file() {
    let text = format!("{SMALL}ca_file = \"ca.pem\"\n");
    let ca_file =
        |pairs| Config::read(&text, Some("/etc/beespace/beespace.toml".into()), env(pairs)).unwrap().config.gogs.ca_file;
    assert_eq!(ca_file(&[]), Some("/etc/beespace/ca.pem".into()));
    assert_eq!(ca_file(&[("BEESPACE_GOGS__CA_FILE", "ca.pem")]), Some("ca.pem".into()));
}

#[test]
fn invalid_toml_is_reported_with_its_position() {
    let twice = problems("[gogs]\nurl = \"http://g\"\n\n[gogs]\ntoken = \"t\"\n", &[]);
    assert!(twice.len() == 1 && twice[0].starts_with("beespace.toml:4:2: duplicate key `gogs` (remove one"), "{twice:#?}");
    let twice = problems("[gogs]\nurl = \"a\"\nurl = \"b\"\n", &[]);
    assert!(twice.len() == 1 && twice[0].starts_with("beespace.toml:3:1: duplicate key `url`"), "{twice:#?}");
    let reported = problems("[server]\nlisten = \n", &[]);
    assert!(reported[0].starts_with("beespace.toml:2:"), "{reported:#?}");
}
