//! Properties of containers that only a real engine can show.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use beespace::engine::docker::Docker;
use beespace_core::exit::ExitCause;
use beespace_core::output::OutputOffsets;
use beespace_core::plan::{Container, Network, SecretMount, SecretTarget};
use beespace_tests::docker;
use beespace_tests::engine_fixture::{EngineFixture, collect_output};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};
use secrecy::SecretString;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const CANARY: &str = "c4nary-'\"$(x)`\\ of\ntwo lines";

#[tokio::test]
async fn output_arrives_whole_in_order_and_by_stream() {
    let fixture = EngineFixture::docker().await;
    let script = "seq 1 40000\nseq 1 20000 >&2\nprintf 'no newline'";
    let (exit, output) = fixture.run(fixture.launch(1, fixture.shell_container(script))).await;
    assert!(exit.is_success());
    let lines = |to: u32| (1..=to).map(|n| format!("{n}\n")).collect::<String>();
    assert!(output.stdout == lines(40_000) + "no newline", "{} bytes", output.stdout.len());
    assert!(output.stderr == lines(20_000), "{} bytes", output.stderr.len());
    fixture.destroy().await;
}

#[tokio::test]
async fn trace_and_output_are_in_one_order() {
    let fixture = EngineFixture::docker().await;
    let run = ["echo one".to_owned(), "cat <<EOF\ntwo $((1+2))\nEOF".to_owned(), "false || echo status $?".to_owned()];
    let text = fixture.shell_output(1, &beespace_core::script::script(&run)).await;
    let expected = "+ echo one\none\n+ cat <<EOF\n> two $((1+2))\n> EOF\ntwo 3\n+ false || echo status $?\nstatus 1\n";
    assert_eq!(text, expected);
    fixture.destroy().await;
}

#[tokio::test]
async fn a_failing_line_ends_the_script_and_stdin_is_closed() {
    let fixture = EngineFixture::docker().await;
    let run = ["cat".to_owned(), "echo before".to_owned(), "(exit 9)".to_owned(), "echo after".to_owned()];
    let (exit, output) = fixture.run(fixture.launch(1, fixture.shell_container(&beespace_core::script::script(&run)))).await;
    assert_eq!((exit.cause, exit.code), (ExitCause::Exited, Some(9)));
    assert!(output.stdout.contains("\nbefore\n") && !output.stdout.contains("after"), "{}", output.stdout);
    fixture.destroy().await;
}

/// A repository with a program, a link to the outside, and a file whose name looks like an option.
fn checkout(folder: &Path) {
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
        let output = Command::new("git").current_dir(folder).args(identity).args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    std::fs::create_dir(folder.join("src")).unwrap();
    std::fs::write(folder.join("src/--file"), "text\n").unwrap();
    std::fs::write(folder.join("run.sh"), "#!/bin/sh\necho ran\n").unwrap();
    std::fs::set_permissions(folder.join("run.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", "first"]);
}

#[tokio::test]
async fn the_workspace_is_usable_by_any_user_and_git_does_not_complain() {
    let fixture = EngineFixture::docker().await;
    let folder = tempfile::tempdir().unwrap();
    checkout(folder.path());
    fixture.engine.fill(fixture.stage, Some(folder.path()), &[]).await.unwrap();
    let script = "pwd; ./run.sh; cat src/--file; readlink link; git status --porcelain; git log --format=%s; \
                  echo more >>src/--file; mkdir new; echo x >new/x; git commit -q --allow-empty -m second 2>/dev/null || echo no \
                  identity";
    let mut container = fixture.shell_container(script);
    container.user = Some("1000:1000".to_owned());
    let (exit, output) = fixture.run(fixture.launch(1, container)).await;
    assert!(exit.is_success(), "{exit:?} {output:?}");
    assert_eq!(output.stdout, "/workspace\nran\ntext\n/etc/passwd\nfirst\nno identity\n", "{}", output.stderr);
    let seen = fixture.shell_output(2, "cat src/--file new/x; stat -c %a /workspace").await;
    assert_eq!(seen, "text\nmore\nx\n777\n", "the next step sees what the one before has left");
    fixture.destroy().await;
}

#[tokio::test]
async fn a_workspace_without_sources_is_empty_and_writable() {
    let fixture = EngineFixture::docker().await;
    let mut container = fixture.shell_container("ls -A | wc -l; touch mine && ls");
    container.user = Some("1000".to_owned());
    let (exit, output) = fixture.run(fixture.launch(1, container)).await;
    assert!(exit.is_success(), "{output:?}");
    assert_eq!(output.stdout, "0\nmine\n");
    fixture.destroy().await;
}

fn with_secret(container: &mut Container, target: SecretTarget) -> BTreeMap<String, SecretString> {
    container.secrets = vec![SecretMount { secret: "canary".to_owned(), target }];
    BTreeMap::from([("canary".to_owned(), SecretString::from(CANARY))])
}

#[tokio::test]
async fn secrets_reach_the_script_and_not_docker_inspect() {
    let fixture = EngineFixture::docker().await;
    let mut container = fixture.shell_container("printf '%s' \"$KEY\"; cat /run/secrets/key; echo $$ >&2");
    container.user = Some("1000".to_owned());
    let secrets = with_secret(&mut container, SecretTarget::Env("KEY".to_owned()));
    container
        .secrets
        .push(SecretMount { secret: "canary".to_owned(), target: SecretTarget::File("/run/secrets/key".to_owned()) });
    let mut launch = fixture.launch(1, container);
    launch.secrets = secrets;
    let expected = launch.secrets["canary"].clone();
    let (exit, output) = fixture.run(launch.clone()).await;
    assert!(exit.is_success(), "{exit:?} {output:?}");
    assert_eq!(output.stdout, format!("{}{}", secrecy::ExposeSecret::expose_secret(&expected), CANARY));

    let name = format!("beespace-{}-{}-0", docker::instance(), launch.step);
    let inspected = docker::api().await.unwrap().inspect_container(&name, None::<InspectContainerOptions>).await.unwrap();
    let text = serde_json::to_string(&inspected).unwrap();
    assert!(!text.contains("c4nary"), "{text}");
    let other = fixture.shell_output(2, "echo \"[$KEY]\"; ls -A /.beespace; ls /run/secrets 2>/dev/null || true").await;
    assert_eq!(other, "[]\nscript-2\n", "another step sees nothing of it");
    fixture.destroy().await;
}

#[tokio::test]
async fn a_secret_of_a_container_without_script_is_a_plain_variable() {
    let fixture = EngineFixture::docker().await;
    let mut container = fixture.shell_container("");
    container.script = None;
    container.args = Some(["/bin/sh", "-c", "printf %s \"$KEY\""].map(str::to_owned).to_vec());
    let secrets = with_secret(&mut container, SecretTarget::Env("KEY".to_owned()));
    let mut launch = fixture.launch(1, container);
    launch.secrets = secrets;
    let (exit, output) = fixture.run(launch).await;
    assert!(exit.is_success());
    assert_eq!(output.stdout, CANARY);
    fixture.destroy().await;
}

#[tokio::test]
async fn containers_are_hardened() {
    let fixture = EngineFixture::docker().await;
    let script = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; find / -path /proc -prune -o \
                  -type s -print; cat /proc/1/comm; (mount -t tmpfs x /tmp || mknod /tmp/x b 8 0 || unshare -r true) \
                  2>/dev/null && echo escaped; true";
    let seen = fixture.shell_output(1, script).await;
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE
    assert_eq!(seen, "CapEff:00000000000004fb\nCapBnd:00000000000004fb\nNoNewPrivs:1\nSeccomp:2\ndocker-init\n");
    let name = format!("beespace-{}-{}-0", docker::instance(), fixture.step(1));
    let inspected = docker::api().await.unwrap().inspect_container(&name, None::<InspectContainerOptions>).await.unwrap();
    let log = inspected.host_config.unwrap().log_config.unwrap();
    let settings = log.config.unwrap();
    assert_eq!((log.typ.as_deref(), settings["max-file"].as_str()), (Some("json-file"), "1"));
    // Twice the limit of a log.
    assert_eq!(settings["max-size"], (128 << 20).to_string());
    let bomb = "i=0; while [ $i -lt 400 ]; do sleep 5 & i=$((i+1)); done; wait";
    let (exit, output) = fixture.run(fixture.launch(2, fixture.shell_container(bomb))).await;
    assert!(!exit.is_success() && output.stderr.contains("fork"), "{exit:?} {}", output.stderr);
    assert!(exit.message.contains("its limit is 128 processes and threads (`[limits] step_pids`)"), "{exit:?}");
    fixture.destroy().await;
}

#[tokio::test]
async fn a_stage_has_a_network_of_its_own() {
    let (fixture, other) = tokio::join!(EngineFixture::docker(), EngineFixture::docker());
    let server = fixture.launch(1, fixture.shell_container("echo hello from here | nc -l -p 8080"));
    // The listener responds once; on a loaded machine that may take a while.
    let client = "i=0; until nc -w 10 127.0.0.1 8080 </dev/null; do i=$((i+1)); [ $i -lt 250 ]; sleep 0.2; done";
    let ((exit, _), text) = tokio::join!(fixture.run(server), fixture.shell_output(2, client));
    assert!(exit.is_success());
    assert_eq!(text, "hello from here\n");
    let address = |fixture: &EngineFixture| {
        let launch = fixture.launch(3, fixture.shell_container("ip -4 -o addr show eth0 | awk '{print $4}'"));
        let (engine, launch) = (Arc::clone(&fixture.engine), launch);
        async move {
            let (sender, receiver) = mpsc::channel(8);
            let (exit, text) = tokio::join!(engine.run(launch, sender, CancellationToken::new()), collect_output(receiver));
            assert!(exit.unwrap().is_success());
            text.stdout
        }
    };
    let (ours, theirs) = tokio::join!(address(&fixture), address(&other));
    let network = |address: &str| address.rsplit_once('.').map(|(network, _)| network.to_owned());
    assert!(network(&ours).is_some() && network(&ours) != network(&theirs), "{ours} {theirs}");
    let address = theirs.trim().split('/').next().unwrap().to_owned();
    let guarded = other.launch(5, other.shell_container("while true; do echo only for us | nc -l -p 8081 || sleep 0.1; done"));
    let (sender, receiver) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let listen = other.engine.run(guarded, sender, cancel.clone());
    let knock = client.replace("127.0.0.1 8080", &format!("{address} 8081"));
    let steal = format!("for try in 1 2 3; do nc -w 1 {address} 8081 </dev/null || true; sleep 0.3; done");
    let intrude = async {
        // The listener is up before the intruder tries, and still up afterwards.
        let before = other.shell_output(6, &knock).await;
        let stolen = fixture.shell_output(5, &steal).await;
        let after = other.shell_output(7, &knock).await;
        cancel.cancel();
        [before, stolen, after]
    };
    let (exit, _, heard) = tokio::join!(listen, collect_output(receiver), intrude);
    assert_eq!(exit.unwrap().cause, ExitCause::Cancelled);
    assert_eq!(heard, ["only for us\n", "", "only for us\n"]);
    let mut alone = fixture.shell_container("ls /sys/class/net");
    alone.network = Network::None;
    let (exit, output) = fixture.run(fixture.launch(4, alone)).await;
    assert!(exit.is_success() && !output.stdout.contains("eth0"), "{output:?}");
    tokio::join!(fixture.destroy(), other.destroy());
}

#[tokio::test]
async fn shell_user_and_directories_in_memory_are_those_of_the_plan() {
    let fixture = EngineFixture::docker().await;
    let script = "case $- in *u*) echo options;; esac; id -u; grep -o ' /tmp/work tmpfs .*size=1024k' /proc/mounts | cut -c1-16; \
                  printf '#!/bin/sh\\necho runs\\n' >/tmp/work/t; chmod +x /tmp/work/t; /tmp/work/t";
    let mut container = fixture.shell_container(script);
    container.shell = Some(["/bin/sh", "-eu"].map(str::to_owned).to_vec());
    container.user = Some("1000:1000".to_owned());
    container.tmpfs = BTreeMap::from([("/tmp/work".to_owned(), Some(1 << 20))]);
    let (exit, output) = fixture.run(fixture.launch(1, container)).await;
    assert!(exit.is_success(), "{exit:?} {output:?}");
    assert_eq!(output.stdout, "options\n1000\n /tmp/work tmpfs\nruns\n");
    fixture.destroy().await;
}

#[tokio::test]
async fn access_to_the_machine_is_refused_by_the_engine_too() {
    let fixture = EngineFixture::docker().await;
    let changes: [fn(&mut Container); 3] = [
        |container| container.privileged = true,
        |container| container.devices.push("/dev/null".to_owned()),
        |container| container.network = Network::Host,
    ];
    for (number, change) in (1..).zip(changes) {
        let mut container = fixture.shell_container("true");
        change(&mut container);
        let (exit, _) = fixture.run(fixture.launch(number, container)).await;
        assert_eq!(exit.cause, ExitCause::StartFailed);
        assert!(exit.message.contains("not available to steps"), "{}", exit.message);
    }
    fixture.destroy().await;
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_reported() {
    let fixture = EngineFixture::docker().await;
    for (image, expected) in [("127.0.0.1:1/acme/tool:3", "could not be pulled"), ("Not An Image", "is not a valid image name")] {
        let mut container = fixture.shell_container("true");
        container.image = image.to_owned();
        let (exit, output) = fixture.run(fixture.launch(1, container)).await;
        assert_eq!((exit.cause, exit.code), (ExitCause::ImageFailed, None), "{exit:?}");
        assert!(exit.message.contains(image) && exit.message.contains(expected), "{}", exit.message);
        assert_eq!(output.host.is_empty(), image.contains(' '), "{}", output.host);
    }
    fixture.destroy().await;
}

#[tokio::test]
async fn unsupported_plan_parts_are_refused_with_a_reason() {
    let fixture = EngineFixture::docker().await;
    let mut container = fixture.shell_container("true");
    container.network = Network::EgressAllowList;
    let (exit, _) = fixture.run(fixture.launch(1, container)).await;
    assert_eq!(exit.cause, ExitCause::StartFailed);
    assert!(exit.message.contains("not supported yet"), "{}", exit.message);
    fixture.destroy().await;
}

#[tokio::test]
async fn a_restart_adopts_a_running_container_and_repeats_no_byte() {
    let fixture = EngineFixture::docker().await;
    let script = "i=1; while [ $i -le 30 ]; do echo out $i; echo err $i >&2; sleep 0.1; i=$((i+1)); done; exit 7";
    let launch = fixture.launch(1, fixture.shell_container(script));
    let (sender, mut receiver) = mpsc::channel(8);
    let (engine, first) = (Arc::clone(&fixture.engine), launch.clone());
    let running = tokio::spawn(async move { engine.run(first, sender, CancellationToken::new()).await });
    let mut before = String::new();
    let mut stored = OutputOffsets::default();
    while before.lines().count() < 12 {
        let piece = receiver.recv().await.unwrap();
        match piece.stream {
            beespace_core::output::Stream::Stderr => stored.stderr += piece.bytes.len() as u64,
            _ => {
                stored.stdout += piece.bytes.len() as u64;
                before += std::str::from_utf8(&piece.bytes).unwrap();
            }
        }
    }
    // As with `kill -9` of the server, nothing is closed regularly.
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());

    let again =
        EngineFixture { engine: Arc::new(Docker::new(docker::options(docker::HOST, &docker::instance())).unwrap()), ..fixture };
    let (exit, after) = again.adopt(launch, stored).await.unwrap();
    assert_eq!((exit.cause, exit.code), (ExitCause::Exited, Some(7)));
    let whole = |prefix: &str| (1..=30).map(|n| format!("{prefix} {n}\n")).collect::<String>();
    assert_eq!(before + &after.stdout, whole("out"));
    assert_eq!(after.stderr, whole("err")[usize::try_from(stored.stderr).unwrap()..]);
    again.destroy().await;
}

#[tokio::test]
async fn a_program_that_ignores_term_is_killed() {
    let fixture = EngineFixture::docker().await;
    let mut container = fixture.shell_container("trap '' TERM; while :; do sleep 0.1; done");
    container.limits.timeout_seconds = Some(1);
    let (exit, _) = fixture.run(fixture.launch(1, container)).await;
    assert_eq!((exit.cause, exit.code), (ExitCause::TimedOut, Some(137)));
    fixture.destroy().await;
}

#[tokio::test]
async fn many_concurrent_containers_all_finish() {
    let fixture = EngineFixture::docker().await;
    let runs = (1..=12_u16).map(|step| fixture.run(fixture.launch(step, fixture.shell_container("exit 1"))));
    for (exit, output) in futures::future::join_all(runs).await {
        assert_eq!((exit.cause, exit.code), (ExitCause::Exited, Some(1)), "{exit:?} {output:?}");
    }
    fixture.destroy().await;
}

#[tokio::test]
async fn a_slow_receiver_loses_nothing() {
    let fixture = EngineFixture::docker().await;
    let (sender, mut receiver) = mpsc::channel::<beespace::engine::Output>(1);
    let launch = fixture.launch(1, fixture.shell_container("head -c 3000000 /dev/zero | tr '\\0' x"));
    let read = async {
        let mut bytes = 0;
        while let Some(piece) = receiver.recv().await {
            bytes += piece.bytes.len();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bytes
    };
    let (exit, bytes) = tokio::join!(fixture.engine.run(launch, sender, CancellationToken::new()), read);
    assert!(exit.unwrap().is_success());
    assert_eq!(bytes, 3_000_000);
    fixture.destroy().await;
}

#[tokio::test]
async fn destroy_leaves_nothing_behind() {
    let fixture = EngineFixture::docker().await;
    let container = fixture.shell_container("true");
    let _ = fixture.run(fixture.launch(1, container)).await;
    let stage = fixture.stage;
    fixture.destroy().await;
    let api = docker::api().await.unwrap();
    let filters = HashMap::from([("label".to_owned(), vec![format!("beespace.stage={stage}")])]);
    let containers =
        api.list_containers(Some(ListContainersOptionsBuilder::new().all(true).filters(&filters).build())).await.unwrap();
    let volumes = api.list_volumes(Some(ListVolumesOptionsBuilder::new().filters(&filters).build())).await.unwrap();
    let networks = api.list_networks(Some(ListNetworksOptionsBuilder::new().filters(&filters).build())).await.unwrap();
    assert_eq!((containers.len(), volumes.volumes.unwrap_or_default().len(), networks.len()), (0, 0, 0));
}

#[tokio::test]
async fn an_engine_behind_tcp_behaves_the_same() {
    docker::ensure_running().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut inside = UnixStream::connect(docker::HOST.trim_start_matches("unix://")).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    let engine = Docker::new(docker::options(&format!("tcp://{address}"), &docker::instance())).unwrap();
    let fixture = EngineFixture::on(Arc::new(engine), docker::test_image().await.unwrap()).await;
    assert_eq!(fixture.shell_output(1, "echo over tcp").await, "over tcp\n");
    fixture.destroy().await;
}
