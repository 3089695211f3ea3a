//! The Docker engine of the tests, and images that need no network.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use beespace::engine::Engine as _;
use beespace::engine::docker::{Docker, DockerOptions, Timeouts};
use beespace_core::ids::StageId;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, body_full};
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

/// The address of the engine.
pub const HOST: &str = "unix:///var/run/docker.sock";

/// Starts an engine if none is running. A test that needs an engine fails without it; it is never skipped.
///
/// # Errors
/// The message of `tests/ensure-docker`.
pub fn ensure_running() -> Result<()> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ensure-docker");
        let output = Command::new(script).output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    started.clone().map_err(anyhow::Error::msg)
}

/// The API of the engine, to inspect what Beespace has created.
///
/// # Errors
/// The engine is not running.
pub async fn api() -> Result<bollard::Docker> {
    ensure_running()?;
    Ok(bollard::Docker::connect_with_socket(HOST, 60, API_DEFAULT_VERSION)?.negotiate_version().await?)
}

/// The engine that tests share; each test uses stages of its own. Leftovers of earlier runs are removed first.
///
/// # Errors
/// There is no engine.
pub async fn shared_engine() -> Result<Arc<Docker>> {
    static ENGINE: OnceCell<Arc<Docker>> = OnceCell::const_new();
    let shared = ENGINE.get_or_try_init(|| async {
        ensure_running()?;
        let engine = Docker::new(options(HOST, &instance()))?;
        for stage in engine.inventory().await?.into_iter().filter(is_stale) {
            engine.destroy(stage).await?;
        }
        anyhow::Ok(Arc::new(engine))
    });
    shared.await.cloned()
}

/// An instance id that is the same for every run of this checkout, so that images are built once.
#[must_use]
pub fn instance() -> String {
    let digest = hex::encode(Sha256::digest(env!("CARGO_MANIFEST_DIR")));
    format!("test{}", digest.get(..12).unwrap_or(&digest))
}

/// Whether a stage belongs to an earlier run.
fn is_stale(stage: &StageId) -> bool {
    let Some(made) = stage.build.0.get_timestamp() else { return true };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    now.saturating_sub(made.to_unix().0) > 15 * 60
}

/// The pause containers of an instance.
///
/// # Errors
/// The engine does not respond.
pub async fn pause_containers(instance: &str) -> Result<Vec<String>> {
    let labels = vec![format!("beespace.instance={instance}"), "beespace.network".to_owned()];
    let filters = HashMap::from([("label".to_owned(), labels)]);
    let all = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    Ok(api().await?.list_containers(Some(all)).await?.into_iter().filter_map(|container| container.id).collect())
}

/// The number of networks of an instance.
///
/// # Errors
/// The engine does not respond.
pub async fn network_count(instance: &str) -> Result<usize> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("beespace.instance={instance}")])]);
    let ours = ListNetworksOptionsBuilder::new().filters(&filters).build();
    Ok(api().await?.list_networks(Some(ours)).await?.len())
}

/// The number of containers and volumes of a build that still exist.
///
/// # Errors
/// The engine does not respond.
pub async fn leftover_count(build: &str) -> Result<usize> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("beespace.build={build}")])]);
    let api = api().await?;
    let containers = api.list_containers(Some(ListContainersOptionsBuilder::new().all(true).filters(&filters).build())).await?;
    let volumes = api.list_volumes(Some(ListVolumesOptionsBuilder::new().filters(&filters).build())).await?;
    Ok(containers.len() + volumes.volumes.unwrap_or_default().len())
}

/// The running step containers of a build.
///
/// # Errors
/// The engine does not respond.
pub async fn running_containers(build: &str) -> Result<Vec<String>> {
    let labels = vec![format!("beespace.build={build}"), "beespace.container".to_owned()];
    let filters = HashMap::from([("label".to_owned(), labels)]);
    let running = ListContainersOptionsBuilder::new().filters(&filters).build();
    Ok(api().await?.list_containers(Some(running)).await?.into_iter().filter_map(|container| container.id).collect())
}

/// The options of a test engine.
#[must_use]
pub fn options(host: &str, instance: &str) -> DockerOptions {
    DockerOptions {
        host: host.to_owned(),
        instance: instance.to_owned(),
        cpu_millis: None,
        memory: 256 << 20,
        pids: 128,
        log_bytes: 64 << 20,
        network_pool: "198.19.0.0/17".parse().expect("addresses"),
        prewarmed_networks: 0,
        metadata_access: false,
        grace: Duration::from_secs(1),
        timeouts: Timeouts::default(),
    }
}

/// An image with a shell, the usual programs and git, built from installed files. Its tag is a digest of its content, so that
/// it is built once per machine.
///
/// # Errors
/// A program is not installed, or the engine refuses the image.
pub async fn test_image() -> Result<String> {
    static IMAGE: OnceCell<String> = OnceCell::const_new();
    IMAGE.get_or_try_init(async || test_image_in(&api().await?).await).await.cloned()
}

/// Like [`test_image`], in another engine.
///
/// # Errors
/// A program is not installed, or the engine refuses the image.
pub async fn test_image_in(api: &bollard::Docker) -> Result<String> {
    let layer = tokio::task::spawn_blocking(layer).await??;
    let digest = hex::encode(Sha256::digest(&layer));
    let tag = digest.get(..12).unwrap_or(&digest).to_owned();
    let name = format!("beespace-test:{tag}");
    if api.inspect_image(&name).await.is_ok() {
        return Ok(name);
    }
    let options = CreateImageOptionsBuilder::new().from_src("-").repo("beespace-test").tag(&tag).build();
    let mut steps = std::pin::pin!(api.create_image(Some(options), Some(body_full(layer.into())), None));
    while let Some(step) = steps.next().await {
        step?;
    }
    Ok(name)
}

/// An image from these files with instructions of a Dockerfile (`VOLUME /x`). Its tag is a digest of both, so that it is built
/// once per machine.
///
/// # Errors
/// The engine refuses the image.
pub async fn image_with(layer: Vec<u8>, instructions: &[&str]) -> Result<String> {
    let api = api().await?;
    let digest = hex::encode(Sha256::new().chain_update(&layer).chain_update(instructions.join("\n")).finalize());
    let tag = digest.get(..12).unwrap_or(&digest).to_owned();
    let name = format!("beespace-test:{tag}");
    if api.inspect_image(&name).await.is_ok() {
        return Ok(name);
    }
    let changes = instructions.iter().map(|line| (*line).to_owned()).collect();
    let options = CreateImageOptionsBuilder::new().from_src("-").repo("beespace-test").tag(&tag).changes(changes).build();
    let mut steps = std::pin::pin!(api.create_image(Some(options), Some(body_full(layer.into())), None));
    while let Some(step) = steps.next().await {
        step?;
    }
    Ok(name)
}

/// The files of an image whose shell prints to both streams before it does anything else, as bash does for an unknown locale.
///
/// # Errors
/// A program is not installed.
pub fn noisy_shell_layer() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let busybox = std::fs::read("/bin/busybox").context("busybox-static is not installed")?;
    put(&mut tar, "bin/busybox", 0o755, &busybox)?;
    ["cat", "sleep"].into_iter().try_for_each(|applet| link(&mut tar, applet))?;
    let shell = b"#!/bin/busybox sh\necho noise; echo warning >&2\nexec /bin/busybox sh \"$@\"\n";
    put(&mut tar, "bin/sh", 0o755, shell)?;
    Ok(tar.into_inner()?)
}

/// A small image as a tar: fixed content, so that it can have a digest.
///
/// # Errors
/// A program is not installed.
pub fn plain_shell_layer() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let busybox = std::fs::read("/bin/busybox").context("busybox-static is not installed")?;
    put(&mut tar, "bin/busybox", 0o755, &busybox)?;
    ["sh", "cat", "ls", "sleep"].into_iter().try_for_each(|applet| link(&mut tar, applet))?;
    Ok(tar.into_inner()?)
}

/// A small image as a tar: a shell, a file with the text `which`, and this many random bytes.
///
/// # Errors
/// A program is not installed.
pub fn shell_layer(which: &str, bytes: usize) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let busybox = std::fs::read("/bin/busybox").context("busybox-static is not installed")?;
    put(&mut tar, "bin/busybox", 0o755, &busybox)?;
    ["sh", "cat", "sleep"].into_iter().try_for_each(|applet| link(&mut tar, applet))?;
    put(&mut tar, "which", 0o644, which.as_bytes())?;
    let mut bulk = vec![0; bytes.max(16)];
    getrandom::fill(&mut bulk)?;
    put(&mut tar, "bulk", 0o644, &bulk)?;
    Ok(tar.into_inner()?)
}

/// The files of the image as a tar.
fn layer() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let busybox = std::fs::read("/bin/busybox").context("busybox-static is not installed")?;
    put(&mut tar, "bin/busybox", 0o755, &busybox)?;
    let applets = String::from_utf8(Command::new("/bin/busybox").arg("--list").output()?.stdout)?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        link(&mut tar, applet)?;
    }
    put(&mut tar, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n")?;
    put(&mut tar, "etc/group", 0o644, b"root:x:0:\nuser:x:1000:\n")?;
    directory(&mut tar, "tmp/", 0o1777)?;
    directory(&mut tar, "root/", 0o700)?;
    for file in with_libraries(Path::new("/usr/bin/git"))? {
        let inside = file.strip_prefix("/")?.to_string_lossy().into_owned();
        put(&mut tar, &inside, 0o755, &std::fs::read(&file)?)?;
    }
    Ok(tar.into_inner()?)
}

/// A program and its shared libraries.
fn with_libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    if !output.status.success() {
        bail!("ldd cannot read {}", program.display());
    }
    let text = String::from_utf8(output.stdout)?;
    let paths = text.split_whitespace().filter(|part| part.starts_with('/')).map(PathBuf::from);
    Ok(paths.chain([program.to_owned()]).collect())
}

fn put(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    Ok(tar.append_data(&mut header, path, bytes)?)
}

fn link(tar: &mut tar::Builder<Vec<u8>>, applet: &str) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    Ok(tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?)
}

fn directory(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(mode);
    Ok(tar.append_data(&mut header, path, std::io::empty())?)
}
