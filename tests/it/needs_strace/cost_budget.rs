//! How many system calls a build costs, counted with strace.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::{NO_ENV, Process};
use serde_json::{Value, json};

use crate::cost_budget::{MAX_COMMITS, PROGRAM, REPO, five_steps, lines, wait_for_success};

/// A wrapper of the server program that records these system calls, including those of child processes.
fn counting_calls(folder: &Path, calls: &str) -> (String, PathBuf) {
    let (program, noted) = (folder.join("beespace"), folder.join("noted"));
    // Two cores, so that the degree of concurrency is the same everywhere.
    let note = format!(
        "taskset --cpu-list 0,1 strace -D -f --seccomp-bpf -qq -z -e signal=none -e trace={calls} -o {}",
        noted.display()
    );
    std::fs::write(&program, format!("#!/bin/sh\nexec {note} {PROGRAM} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (program.display().to_string(), noted)
}

/// Disk syncs: two for each store commit, so that the file needs no repair after a crash, and for each log its content,
/// the name of its file and its end, for which nothing waits. Git syncs nothing for a fetch of a few objects.
const MAX_SYNCS: usize = 2 * MAX_COMMITS as usize + 3 * 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_five_steps_stays_within_its_budget_of_disk_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let (program, syncs) = counting_calls(folder.path(), "fsync,fdatasync,sync_file_range,syncfs,sync");
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let server = Process::start(&program, &gogs, "[engine]\nkind = \"dummy\"\n", NO_ENV).await.unwrap();
    server.enable(REPO).await.unwrap();
    let before = lines(&syncs).len();
    assert!(before > 0, "strace recorded nothing");
    gogs.push(REPO, "main", &[(".beespace.yml", &five_steps("busybox", 1))], "Change the hive").await.unwrap();
    wait_for_success(&server, 1).await;
    let syncs = lines(&syncs).split_off(before);
    println!("{} syncs", syncs.len());
    assert!(syncs.len() <= MAX_SYNCS, "{} syncs: {syncs:#?}", syncs.len());
}

/// Memory mappings while many policies evaluate many steps: those of each git process, and fewer than one for
/// every second call of a policy.
const MAX_MAPPINGS: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_policies_reuse_their_mapped_memory() {
    const POLICIES: usize = 20;
    const STEPS: usize = 50;
    let folder = tempfile::tempdir().unwrap();
    let (program, mappings) = counting_calls(folder.path(), "mmap");
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target/plugins/policy-images.wasm");
    let policy = |number| {
        format!("[[policy]]\nname = \"p{number}\"\nplugin = {plugin:?}\nsettings = {{ forbidden_tags = [\"never\"] }}\n")
    };
    let settings = "[engine]\nkind = \"dummy\"\n".to_owned() + &(1..=POLICIES).map(policy).collect::<String>();
    let server = Process::start(&program, &gogs, &settings, NO_ENV).await.unwrap();
    server.enable(REPO).await.unwrap();
    let fixed = || lines(&mappings).iter().filter(|line| line.contains("MAP_FIXED")).count();
    let mut before = 0;
    for build in 1..=3 {
        before = fixed();
        let step = |number| json!({ "name": format!("s{number}"), "image": "busybox", "run": "true" });
        let file = json!({ "name": format!("p{build}"), "steps": (1..=STEPS).map(step).collect::<Vec<Value>>() });
        gogs.push(REPO, "main", &[(".beespace.yml", &file.to_string())], "Change the hive").await.unwrap();
        wait_for_success(&server, build).await;
    }
    assert!(before > 0, "strace recorded nothing");
    let mapped = fixed() - before;
    println!("{mapped} mappings for {} policy calls", POLICIES * (STEPS + 1));
    assert!(mapped <= MAX_MAPPINGS, "{mapped} mappings");
}
