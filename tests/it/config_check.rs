//! `beespace config check` with plugin bindings that cannot work: all problems in one run, each with its line and remedy.

use beespace_tests::guest_build::policy_guest;

/// Whether `config check` accepts these bindings, and its messages. `NAME.wasm` are files beside the configuration.
async fn check(bindings: &str, files: &[(&str, &[u8])]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let text = format!("[gogs]\nurl = \"http://gogs.local\"\ntoken = \"x\"\n[engine]\nkind = \"dummy\"\n{bindings}");
    std::fs::write(folder.path().join("beespace.toml"), text).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_beespace-under-test"));
    let checked = command.args(["config", "check"]).current_dir(folder.path()).output().await.unwrap();
    (checked.status.success(), String::from_utf8_lossy(&checked.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_do_not_fit_the_settings_of_a_notifier_are_found() {
    let bindings = r#"
[[notifier]]
name = "bare"
plugin = "notify-webhook"
settings = { url = "https://hooks.example.org/SECRETPART" }
[[notifier]]
name = "unfit"
plugin = "notify-webhook"
settings = { url = "http://127.0.0.1:1/SECRETPART", secret = "k" }
grants = { hosts = ["http://127.0.0.1:1"], secrets = ["j"] }
"#;
    let (is_accepted, messages) = check(bindings, &[]).await;
    assert!(!is_accepted, "{messages}");
    for expected in [
        "beespace.toml:7: [[notifier]] \"bare\": the plugin needs `grants.secrets` (to use secrets): set grants = { secrets = ",
        "beespace.toml:10: [[notifier]] \"bare\": `settings`: `secret` is missing",
        "beespace.toml:10: [[notifier]] \"bare\": `settings.url`: `grants.hosts` does not contain https://hooks.example.org: add",
        "beespace.toml:14: [[notifier]] \"unfit\": `settings.url`: http://127.0.0.1:1 has a loopback address, which `grants",
        "beespace.toml:14: [[notifier]] \"unfit\": `settings.secret`: `grants.secrets` does not contain \"k\": add it",
    ] {
        assert!(messages.contains(expected), "{expected}\n{messages}");
    }
    assert!(!messages.contains("SECRETPART") && !messages.contains("wasi:"), "{messages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_of_a_plugin_that_has_none_is_an_unknown_key() {
    let bindings = "[[step]]\nname = \"check\"\nplugin = \"step-check\"\nsettings = { a = 1, b = 2 }\n";
    let (is_accepted, messages) = check(bindings, &[]).await;
    for key in ["a", "b"] {
        let expected =
            format!("beespace.toml:9: [[step]] \"check\": `settings.{key}`: unknown key `{key}`: this plugin has no settings");
        assert!(!is_accepted && messages.contains(&expected), "{messages}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_compilation_is_announced() {
    let small = policy_guest(&[]);
    let mut large = small.clone();
    // A custom section of one mebibyte: an empty name, and zeros.
    large.extend([0, 0x81, 0x80, 0x40, 0]);
    large.resize(large.len() + (1 << 20), 0);
    let bindings = "[[policy]]\nname = \"small\"\nplugin = \"./small.wasm\"\n\
                    [[policy]]\nname = \"large\"\nplugin = \"./large.wasm\"\n";
    let (is_accepted, messages) = check(bindings, &[("small.wasm", &small), ("large.wasm", &large)]).await;
    let announced: Vec<&str> = messages.lines().filter(|line| line.contains("compiling")).collect();
    assert_eq!((is_accepted, announced), (true, vec!["compiling plugin large (2 MiB), which may take a minute"]), "{messages}");
}
