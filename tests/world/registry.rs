//! An image registry: a separate program on its own port, with a [`TcpProxy`] in front of it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use bollard::auth::DockerCredentials;
use bollard::body_full;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptionsBuilder, PushImageOptionsBuilder, RemoveImageOptionsBuilder,
};
use futures::StreamExt as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::docker;
use crate::tcp_proxy::{TcpProxy, Upstream};

/// The user of a registry that requires authentication.
pub const USER: &str = "bee";
pub const PASSWORD: &str = "nectar-of-the-registry";
/// The line of a password file for this user.
const HTPASSWD: &str = "bee:$2y$05$TTzI2r6fbQcbSQuEiYP5uuB95V9W9nUEJs1EFQjzd3rDC0vv9.8Na\n";

/// A running registry, empty at first. It stops when dropped.
#[derive(Debug)]
pub struct Registry {
    /// The proxy in front of the registry; the names of images begin with its address.
    pub proxy: TcpProxy,
    requires_authentication: bool,
    _program: Child,
    _folder: tempfile::TempDir,
}

/// An image that is in the registry and not in the engine.
#[derive(Debug, Clone)]
pub struct PushedImage {
    /// `127.0.0.1:41711/acme/tool:1`
    pub name: String,
    /// `127.0.0.1:41711/acme/tool@sha256:…`
    pub by_digest: String,
}

impl Registry {
    /// # Errors
    /// The program is missing or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(false).await
    }

    /// A registry that only [`USER`] can read.
    ///
    /// # Errors
    /// The program is missing or does not start.
    pub async fn with_authentication() -> Result<Self> {
        Self::start_with(true).await
    }

    async fn start_with(asks_for_sign_in: bool) -> Result<Self> {
        ensure_program()?;
        let folder = tempfile::tempdir()?;
        let mut config = format!(
            "version: 0.1\nlog: {{ level: info, formatter: text }}\nstorage: {{ filesystem: {{ rootdirectory: {:?} }} }}\n\
             http: {{ addr: \"127.0.0.1:0\" }}\n",
            folder.path().join("data")
        );
        if asks_for_sign_in {
            let passwords = folder.path().join("htpasswd");
            std::fs::write(&passwords, HTPASSWD)?;
            config.push_str(&format!("auth: {{ htpasswd: {{ realm: hive, path: {passwords:?} }} }}\n"));
        }
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(root().join("target/tools/docker-registry"));
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut program = command.spawn()?;
        let address = read_address(&mut program).await?;
        Ok(Self {
            proxy: TcpProxy::to(Upstream::Tcp(address)).await?,
            requires_authentication: asks_for_sign_in,
            _program: program,
            _folder: folder,
        })
    }

    /// The full name of an image in this registry.
    #[must_use]
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.proxy.address())
    }

    /// Builds an image with a shell and pushes it. Its file `/which` contains `which`, and it has this many random `bytes`, so
    /// that no two images share a layer. The engine's copy is removed.
    ///
    /// # Errors
    /// The engine or the registry refuses.
    pub async fn push(&self, image: &str, which: &str, bytes: usize) -> Result<PushedImage> {
        let api = docker::api().await?;
        let name = self.name(image);
        let (repository, tag) = name.rsplit_once(':').context("an image without a tag")?;
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).build();
        let layer = docker::shell_layer(which, bytes)?;
        let mut steps = std::pin::pin!(api.create_image(Some(options), Some(body_full(layer.into())), None));
        while let Some(step) = steps.next().await {
            step?;
        }
        let sign_in = self.requires_authentication.then(|| DockerCredentials {
            username: Some(USER.to_owned()),
            password: Some(PASSWORD.to_owned()),
            ..DockerCredentials::default()
        });
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let mut steps = std::pin::pin!(api.push_image(repository, Some(options), sign_in));
        while let Some(step) = steps.next().await {
            step?;
        }
        let digests = api.inspect_image(&name).await?.repo_digests.unwrap_or_default();
        let by_digest = digests.into_iter().find(|digest| digest.starts_with(repository)).context("no digest of it")?;
        remove_image(&name).await?;
        Ok(PushedImage { name, by_digest })
    }

    /// Stops the registry and removes its images from the engine.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn stop(self) -> Result<()> {
        let api = docker::api().await?;
        let ours = self.name("");
        for image in api.list_images(Some(ListImagesOptionsBuilder::new().build())).await? {
            if image.repo_tags.iter().chain(&image.repo_digests).any(|name| name.starts_with(&ours)) {
                remove_image(&image.id).await?;
            }
        }
        Ok(())
    }
}

/// Removes an image from the engine.
async fn remove_image(image: &str) -> Result<()> {
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    docker::api().await?.remove_image(image, Some(options), None).await?;
    Ok(())
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Installs the program if it is missing.
fn ensure_program() -> Result<()> {
    static THERE: OnceLock<Result<(), String>> = OnceLock::new();
    let there = THERE.get_or_init(|| {
        let output =
            std::process::Command::new(root().join("tests/ensure-registry")).output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    there.clone().map_err(anyhow::Error::msg)
}

/// The address, read from the registry's log.
async fn read_address(program: &mut Child) -> Result<SocketAddr> {
    let mut log = BufReader::new(program.stderr.take().context("no log")?).lines();
    while let Some(line) = log.next_line().await? {
        let rest = line.split_once("listening on ").map(|(_, rest)| rest);
        let Some(address) = rest.and_then(|rest| rest.split(['"', ',']).next()) else { continue };
        let address = address.parse().with_context(|| format!("not an address: {line}"))?;
        // Read on, or the program blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        return Ok(address);
    }
    bail!("the registry exited before it was ready")
}
