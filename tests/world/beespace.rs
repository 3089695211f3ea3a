//! A complete Beespace in the process of the test, with its own port and data directory, in front of a fake Gogs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use beespace::app::App;
use beespace::clock::now;
use beespace::config::Config;
use beespace::forge::{Enabler, HookLocks};
use beespace::server;
use beespace::store::build::{BuildFilter, Builds as _};
use beespace::store::repository::Repositories as _;
use beespace::store::secret::{Secret, SecretScope};
use beespace_core::build::{Build, Stage, Step};
use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::{RepositoryName, StepId};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use crate::WAIT_TIMEOUT;
use crate::client::Client;
use crate::gogs::FakeGogs;

/// A running Beespace.
#[derive(Debug)]
pub struct Beespace {
    pub app: Arc<App>,
    /// Its URL, without a slash at the end.
    pub url: String,
    task: JoinHandle<anyhow::Result<()>>,
    /// Stops it when the test ends.
    stop: DropGuard,
    folder: tempfile::TempDir,
    settings: Settings,
}

/// The configuration, kept for a restart.
#[derive(Debug)]
struct Settings {
    /// Lines of `[server]` besides `listen`.
    server: String,
    extra: String,
    gogs: (String, String),
}

impl Beespace {
    /// Starts a server for `gogs`. `extra` is added to its configuration and must select an engine.
    ///
    /// # Errors
    /// The server does not start.
    pub async fn start(gogs: &FakeGogs, extra: &str) -> anyhow::Result<Self> {
        Self::start_with(gogs, "open = true", extra).await
    }

    /// Like [`Beespace::start`], with other lines in `[server]`; with none, reading requires a sign-in.
    ///
    /// # Errors
    /// The server does not start.
    pub async fn start_with(gogs: &FakeGogs, server: &str, extra: &str) -> anyhow::Result<Self> {
        Self::start_as(gogs, gogs.token(), server, extra).await
    }

    /// Like [`Beespace::start_with`], with the token of another Gogs user.
    ///
    /// # Errors
    /// The server does not start.
    pub async fn start_as(gogs: &FakeGogs, token: &str, server: &str, extra: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let gogs = (gogs.url().to_owned(), token.to_owned());
        let settings = Settings { server: server.to_owned(), extra: extra.to_owned(), gogs };
        let (app, url, task) = run(&folder, &settings).await?;
        Ok(Self { stop: app.stopping.clone().drop_guard(), app, url, task, folder, settings })
    }

    /// The admin token.
    ///
    /// # Errors
    /// The token cannot be read.
    pub fn admin_token(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.app.config.data.admin_token_path())?.trim().to_owned())
    }

    /// A client without credentials.
    #[must_use]
    pub fn anonymous(&self) -> Client {
        Client::new(&self.url)
    }

    /// A client with the admin token.
    ///
    /// # Errors
    /// The token cannot be read.
    pub fn admin(&self) -> anyhow::Result<Client> {
        Ok(self.anonymous().with_token(&self.admin_token()?))
    }

    /// Stops the server as SIGTERM does and starts it again on the same data, with another port.
    ///
    /// # Errors
    /// The server does not stop or start.
    pub async fn restart(self) -> anyhow::Result<Self> {
        let extra = self.settings.extra.clone();
        self.restart_with(&extra).await
    }

    /// Like [`Beespace::restart`], with another configuration.
    ///
    /// # Errors
    /// The server does not stop or start.
    pub async fn restart_with(self, extra: &str) -> anyhow::Result<Self> {
        let Self { app, task, stop, folder, mut settings, .. } = self;
        extra.clone_into(&mut settings.extra);
        drop(stop);
        task.await??;
        drop(app);
        let (app, url, task) = run(&folder, &settings).await?;
        Ok(Self { stop: app.stopping.clone().drop_guard(), app, url, task, folder, settings })
    }

    /// Enables a repository.
    ///
    /// # Errors
    /// Gogs refuses.
    pub async fn enable(&self, name: &str) -> anyhow::Result<()> {
        let enabler = Enabler {
            forge: self.app.forge.clone(),
            store: self.app.store.clone(),
            seal: beespace::encryption::Key::clone(&self.app.key),
            hook_base: self.url.parse()?,
            locks: HookLocks::default(),
        };
        enabler.enable(&name.parse()?, now()).await?;
        Ok(())
    }

    /// Sets a secret of the instance.
    ///
    /// # Errors
    /// The store fails.
    pub async fn set_secret(&self, name: &str, value: &str) -> anyhow::Result<()> {
        self.set_secret_in(SecretScope::Instance, name, value).await
    }

    /// Sets a secret of plugins.
    ///
    /// # Errors
    /// The store fails.
    pub async fn set_plugin_secret(&self, name: &str, value: &str) -> anyhow::Result<()> {
        self.set_secret_in(SecretScope::Plugins, name, value).await
    }

    async fn set_secret_in(&self, scope: SecretScope, name: &str, value: &str) -> anyhow::Result<()> {
        let value = self.app.key.seal(&scope.associated_data(name), value.as_bytes())?;
        let secret = Secret { scope, name: name.to_owned(), value, changed_at: now(), moved_at: None };
        Ok(self.app.store.set_secret(secret).await?)
    }

    /// Waits until `look` returns a value. It is called after every change.
    ///
    /// # Errors
    /// Times out; the error names `what`.
    pub async fn wait_for<T>(&self, what: &str, look: impl AsyncFn() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
        let mut changes: broadcast::Receiver<ChangeEvent> = self.app.store.watch();
        let found = tokio::time::timeout(WAIT_TIMEOUT, async {
            loop {
                if let Some(found) = look().await? {
                    return anyhow::Ok(found);
                }
                // The condition may be outside the store, so it is also checked every 50 ms.
                let _ = tokio::time::timeout(Duration::from_millis(50), changes.recv()).await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => bail!("waited in vain for {what}; builds: {:#?}", self.builds()?),
        }
    }

    /// Waits until a build meets a condition.
    ///
    /// # Errors
    /// Times out.
    pub async fn wait_for_build(&self, name: &str, number: u64, wanted: impl Fn(&Build) -> bool) -> anyhow::Result<Build> {
        self.wait_for(&format!("{name}#{number}"), async || Ok(self.build(name, number)?.filter(&wanted))).await
    }

    /// Waits until a build is finished.
    ///
    /// # Errors
    /// Times out.
    pub async fn wait_until_finished(&self, name: &str, number: u64) -> anyhow::Result<Build> {
        self.wait_for_build(name, number, |build| build.finished_at.is_some()).await
    }

    /// # Errors
    /// The store fails.
    pub fn build(&self, name: &str, number: u64) -> anyhow::Result<Option<Build>> {
        let read = self.app.store.read()?;
        let Some(repository) = read.repository_by_name(&name.parse::<RepositoryName>()?)? else { return Ok(None) };
        Ok(read.build_by_number(repository.id, number)?)
    }

    /// All builds, newest first.
    ///
    /// # Errors
    /// The store fails.
    pub fn builds(&self) -> anyhow::Result<Vec<Build>> {
        Ok(self.app.store.read()?.builds(BuildFilter::default(), usize::MAX)?)
    }

    /// The only stage of a build.
    ///
    /// # Errors
    /// The build has no stage.
    pub fn stage(&self, build: &Build) -> anyhow::Result<Stage> {
        self.app.store.read()?.stages(build.id)?.into_iter().next().context("the build has no stage")
    }

    /// A step by its name.
    ///
    /// # Errors
    /// There is no such step.
    pub fn step(&self, build: &Build, name: &str) -> anyhow::Result<Step> {
        self.stage(build)?.steps.into_iter().find(|step| step.name == name).with_context(|| format!("no step {name:?}"))
    }

    /// The lines of a step's log.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn log(&self, build: &Build, step: &str) -> anyhow::Result<Vec<String>> {
        let stage = self.stage(build)?;
        let step = self.step(build, step)?;
        let id = StepId { build: build.id, stage: stage.number, step: step.number, attempt: step.attempt };
        let page = self.app.logs.reader(id).lines(1, 10_000).await?;
        Ok(page.lines.into_iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect())
    }
}

async fn run(
    folder: &tempfile::TempDir,
    settings: &Settings,
) -> anyhow::Result<(Arc<App>, String, JoinHandle<anyhow::Result<()>>)> {
    let Settings { server, extra, gogs: (gogs, token) } = settings;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let text = format!(
        "[server]\nlisten = \"{address}\"\n{server}\n[data]\ndir = \"{}\"\n[gogs]\nurl = \"{gogs}\"\n{extra}\n",
        folder.path().join("data").display()
    );
    let mut env = vec![("BEESPACE_GOGS__TOKEN".to_owned(), token.clone())];
    if !extra.contains("free_disk") {
        // The tests do not depend on how full the disk of this machine is.
        env.push(("BEESPACE_LIMITS__FREE_DISK".to_owned(), "16MiB".to_owned()));
    }
    if !extra.contains("prewarmed_networks") {
        // Prewarmed networks of many servers would exhaust the engine's addresses.
        env.push(("BEESPACE_ENGINE__PREWARMED_NETWORKS".to_owned(), "0".to_owned()));
    }
    let loaded = Config::read(&text, None, env).map_err(|problems| anyhow::anyhow!("{problems:#?}"))?;
    let app = App::open(loaded.config).await?;
    let task = tokio::spawn(server::run(Arc::clone(&app), listener));
    let url = format!("http://{address}");
    // The listener is open, so this request waits until the server is ready.
    Client::new(&url).get("/healthz").await.context("the server did not start")?;
    Ok((app, url, task))
}
