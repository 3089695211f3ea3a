use super::*;
use crate::pipeline;
use crate::plan::{self, Mount, MountSource, Network, SecretMount, SecretTarget};

fn container(id: &str) -> Container {
    serde_json::from_value(serde_json::json!({ "id": id, "image": "rust:1.95" })).unwrap()
}

fn bounds() -> StepBounds {
    let limits = Limits { memory_bytes: Some(1 << 30), pids: Some(512), ..Limits::default() };
    StepBounds { limits, secrets: BTreeSet::from(["token".to_owned()]), trust: Trust::Trusted }
}

/// Rule and place of everything that is wrong with a plan of one container.
fn rules(change: impl FnOnce(&mut Container)) -> Vec<String> {
    let mut only = container("step");
    change(&mut only);
    all_rules(vec![only])
}

fn all_rules(containers: Vec<Container>) -> Vec<String> {
    let verdict = evaluate(&StepPlan { containers, ..StepPlan::default() }, &bounds());
    assert_eq!(verdict.outcome == VerdictOutcome::Deny, !verdict.findings.is_empty());
    let short =
        |f: &Finding| format!("{} {}", f.rule_id.trim_start_matches("beespace/baseline/"), f.pointer.as_deref().unwrap_or(""));
    verdict.findings.iter().map(short).collect()
}

fn mount(source: MountSource, path: &str) -> Mount {
    Mount { source, path: path.to_owned(), read_only: false }
}

#[test]
fn an_ordinary_plan_is_allowed() {
    let rules = rules(|c| {
        c.script = Some("cargo test\n".to_owned());
        c.env.insert("LD_LIBRARY_PATH".to_owned(), "/opt/lib".to_owned());
        c.secrets.push(SecretMount { secret: "token".to_owned(), target: SecretTarget::Env("TOKEN".to_owned()) });
        c.mounts.push(mount(MountSource::Workspace, "/workspace"));
        c.workdir = Some("/workspace".to_owned());
        c.user = Some("1000:1000".to_owned());
        c.limits = Limits { memory_bytes: Some(1 << 30), ..Limits::default() };
        c.network = Network::None;
    });
    assert_eq!(rules, [""; 0]);
    assert_eq!(all_rules(Vec::new()), [""; 0]);
}

#[test]
fn mounts_over_system_directories_are_denied() {
    for path in [
        "/",
        "",
        "workspace",
        "/a/../etc",
        "/a/./b",
        "/a//b",
        "/a/",
        "/proc",
        "/proc/1",
        "/sys/fs",
        "/dev/shm",
        "/etc",
        "/.beespace/run",
        "/usr",
        "/usr/bin",
        "/usr/local/bin/x",
        "/bin",
        "/lib64/x",
        "/w:ro",
        "/a\nb",
    ] {
        assert_eq!(
            rules(|c| c.mounts.push(mount(MountSource::Workspace, path))),
            ["mount-path /containers/0/mounts/0/path"],
            "{path}"
        );
    }
    for path in ["/workspace", "/procs", "/var/cache/apt", "/.beespacex", "/root/.cargo"] {
        assert_eq!(rules(|c| c.mounts.push(mount(MountSource::Workspace, path))), [""; 0], "{path}");
    }
    let twice = rules(|c| c.mounts = vec![mount(MountSource::Workspace, "/w"), mount(MountSource::Workspace, "/w")]);
    assert_eq!(twice, ["mount-path /containers/0/mounts/1/path"]);
}

#[test]
fn access_to_the_machine_is_denied() {
    let rules = rules(|c| {
        c.privileged = true;
        c.devices.push("/dev/kvm".to_owned());
        c.network = Network::Host;
    });
    assert_eq!(
        rules,
        ["privileged /containers/0/privileged", "device /containers/0/devices", "host-network /containers/0/network"]
    );
}

#[test]
fn a_tmpfs_covers_no_system_directory() {
    let rules = |path: &str| rules(|c| c.tmpfs = [(path.to_owned(), None)].into());
    for path in ["/tmp", "/dev/shm", "/workspace/target"] {
        assert_eq!(rules(path), [""; 0], "{path}");
    }
    assert_eq!(rules("/usr/bin"), ["mount-path /containers/0/tmpfs/~1usr~1bin"]);
    assert_eq!(rules("/dev/pts"), ["mount-path /containers/0/tmpfs/~1dev~1pts"]);
}

#[test]
fn a_shell_needs_a_script() {
    assert_eq!(rules(|c| c.shell = Some(vec!["bash".to_owned()])), ["script /containers/0/shell"]);
}

#[test]
fn unsupported_features_are_denied() {
    let rules = rules(|c| {
        c.mounts.push(mount(MountSource::Volume("out".to_owned()), "/out"));
        c.mounts.push(mount(MountSource::Cache { key: "k".to_owned(), restore_keys: Vec::new() }, "/cache"));
        c.service = true;
        c.network = Network::EgressAllowList;
    });
    assert_eq!(
        rules,
        [
            "not-yet /containers/0/service",
            "not-yet /containers/0/network",
            "not-yet /containers/0/mounts/0/source",
            "not-yet /containers/0/mounts/1/source"
        ]
    );
}

#[test]
fn a_plan_gets_only_secrets_that_the_pipeline_passes_to_its_step() {
    let rules = rules(|c| {
        c.env.insert("B".to_owned(), String::new());
        for (secret, target) in [("other", "A"), ("token", "B"), ("token", "C"), ("token", "C"), ("token", "BEESPACE_X")] {
            c.secrets.push(SecretMount { secret: secret.to_owned(), target: SecretTarget::Env(target.to_owned()) });
        }
        for target in ["/etc", "/etc/passwd", "token", "/usr/bin/git", "/secrets/token"] {
            c.secrets.push(SecretMount { secret: "token".to_owned(), target: SecretTarget::File(target.to_owned()) });
        }
        c.secrets.push(SecretMount { secret: "token".to_owned(), target: SecretTarget::Env("A;id".to_owned()) });
    });
    assert_eq!(
        rules,
        [
            "variable-twice /containers/0/secrets/1/target",
            "variable-twice /containers/0/secrets/3/target",
            "variable-name /containers/0/secrets/4/target",
            "variable-name /containers/0/secrets/10/target",
            "secret-not-passed /containers/0/secrets/0/secret",
            "mount-path /containers/0/secrets/5/target",
            "mount-path /containers/0/secrets/6/target",
            "mount-path /containers/0/secrets/7/target",
            "mount-path /containers/0/secrets/8/target"
        ]
    );
}

#[test]
fn variables_need_valid_names_and_values() {
    for (name, value) in
        [("", ""), ("A=B", ""), ("A B", ""), ("A\n", ""), ("BEESPACE_SHA", "x"), ("A", "\0"), ("A", &"x".repeat(1 << 17))]
    {
        let found = rules(|c| drop(c.env.insert(name.to_owned(), value.to_owned())));
        assert_eq!(found.len(), 1, "{name:?}: {found:?}");
    }
}

#[test]
fn limits_are_capped_by_the_instance_and_must_not_be_zero() {
    let rules = rules(|c| {
        c.limits = Limits { cpu_millis: Some(64_000), memory_bytes: Some(2 << 30), pids: Some(0), timeout_seconds: Some(0) };
    });
    assert_eq!(
        rules,
        [
            "limit /containers/0/limits/memory_bytes",
            "limit /containers/0/limits/pids",
            "limit /containers/0/limits/timeout_seconds"
        ]
    );
}

#[test]
fn a_container_has_one_valid_program() {
    let found = rules(|c| {
        c.script = Some("x".to_owned());
        c.args = Some(vec!["a\0".to_owned()]);
        c.workdir = Some("web".to_owned());
        c.user = Some("-u".to_owned());
        c.image = "Rust".to_owned();
    });
    let expected = [
        "image /containers/0/image",
        "script /containers/0/script",
        "nul-byte /containers/0",
        "workdir /containers/0/workdir",
        "user /containers/0/user",
    ];
    assert_eq!(found, expected);
}

#[test]
fn container_ids_are_unique_and_needs_have_no_cycle() {
    let needs =
        |id: &str, needs: &[&str]| Container { needs: needs.iter().map(|&need| need.to_owned()).collect(), ..container(id) };
    assert_eq!(all_rules(vec![needs("a", &[]), needs("b", &["a"]), needs("c", &["a", "b"])]), [""; 0]);
    assert_eq!(all_rules(vec![container("a"), container("a")]), ["container-id /containers/1/id"]);
    assert_eq!(all_rules(vec![container("A/..")]), ["container-id /containers/0/id"]);
    assert_eq!(all_rules(vec![needs("a", &["x"])]), ["unknown-need /containers/0/needs/0"]);
    assert_eq!(all_rules(vec![needs("a", &["a"])]), ["cycle /containers/0/needs"]);
    assert_eq!(all_rules(vec![container("z"), needs("a", &["b"]), needs("b", &["a"])]), ["cycle /containers/1/needs"]);
}

#[test]
fn a_plan_that_is_too_large_is_not_checked_in_detail() {
    assert_eq!(all_rules((0..65).map(|n| container(&format!("C{n}"))).collect()), ["too-many-containers /containers"]);
    assert_eq!(rules(|c| c.script = Some("x".repeat(3 << 20))), ["plan-too-large "]);
}

#[test]
fn a_directory_that_the_pipeline_file_accepts_is_allowed() {
    let long = "d/".repeat(1_990);
    for (workdir, resolved) in [("web/app", "/workspace/web/app"), ("./a//b/", "/workspace/a/b"), ("/srv/./", "/srv"), ("/", "/")]
    {
        let plan = plan_with_workdir(workdir).unwrap();
        assert_eq!(plan.containers[0].workdir.as_deref(), Some(resolved));
        assert_eq!(evaluate(&plan, &StepBounds::default()).outcome, VerdictOutcome::Allow, "{workdir}");
    }
    assert_eq!(evaluate(&plan_with_workdir(&long).unwrap(), &StepBounds::default()).outcome, VerdictOutcome::Allow);
    for workdir in ["../x", "web/..", "/tmp/../etc", "a\\u0007b", &long.repeat(2)] {
        assert_eq!(plan_with_workdir(workdir), None, "{workdir}");
    }
}

/// The plan of a step with this `workdir`; none if the pipeline file is not accepted.
fn plan_with_workdir(workdir: &str) -> Option<StepPlan> {
    let text = format!("steps: [{{ name: a, image: x, workdir: \"{workdir}\" }}]");
    let pipeline = pipeline::read("f", text.as_bytes()).ok()?.pipeline;
    let pipeline::Action::Image(action) = &pipeline.steps[0].action else { return None };
    Some(plan::plan_image_step(&pipeline, &pipeline.steps[0], action))
}

#[test]
fn untrusted_code_is_allowed_without_its_secrets_and_the_step_says_so() {
    let mut only = container("step");
    only.secrets.push(SecretMount { secret: "token".to_owned(), target: SecretTarget::Env("TOKEN".to_owned()) });
    let plan = StepPlan { containers: vec![only], ..StepPlan::default() };
    let untrusted = StepBounds { trust: Trust::Untrusted, ..bounds() };
    let verdict = evaluate(&plan, &untrusted);
    assert_eq!(verdict.outcome, VerdictOutcome::Allow);
    let [finding] = verdict.findings.as_slice() else { panic!("{verdict:?}") };
    assert_eq!(finding.rule_id, "beespace/baseline/untrusted-secret");
    assert_eq!(finding.pointer.as_deref(), Some("/containers/0/secrets/0/secret"));
    assert_eq!(evaluate(&plan, &bounds()).findings, []);
    let said = withheld_secrets(Trust::Untrusted, &untrusted.secrets).unwrap();
    assert!(said.message.contains("\"token\" is withheld") && said.message.contains(&finding.rule_id), "{said}");
    assert_eq!(withheld_secrets(Trust::Trusted, &untrusted.secrets), None);
    assert_eq!(withheld_secrets(Trust::Untrusted, &BTreeSet::new()), None);
}
