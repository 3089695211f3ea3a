//! A fake Gogs: API, git over HTTP and signed webhooks as recorded from Gogs 0.14.3, quirks included, in one process without a
//! database. It listens on loopback and keeps nothing when it stops.
//!
//! It has three users: `ada` is the administrator, `bob` reads everything, `eve` sees only public repositories.
//!
//! | topic | modules |
//! |---|---|
//! | REST API | `api`, `answer`, `auth` |
//! | git over HTTP | `smart_http`, `git` |
//! | from moved refs to payloads | `push_events`, `commit`, `payload`, `go_json` |
//! | pull requests and forks | `pull_request`, `pull_requests` |
//! | signing and serial sending | `delivery` |
//! | pages | `pages` |
//! | control by tests and people | [`FakeGogs`], `control_api` |

mod answer;
mod api;
mod auth;
mod commit;
mod control_api;
mod delivery;
mod git;
mod go_json;
mod hook;
mod inbox;
mod pages;
mod payload;
mod pull_request;
mod pull_requests;
mod push_events;
mod repository;
mod smart_http;
mod state;
mod user;
mod working_copy;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use delivery::{Attempt, Delivery, sign};
pub use inbox::Received;
pub use repository::{Access, Permissions, RepositoryObject};
pub use state::Faults;
pub use user::UserObject;
pub use working_copy::WorkingCopy;

use state::{Instance, random_hex};

/// The administrator of the fake Gogs, who owns repositories created without an owner.
pub const ADMIN: &str = "ada";

/// Settings of a fake Gogs.
#[derive(Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    /// An empty or missing directory; `None` uses a temporary one.
    pub dir: Option<PathBuf>,
    /// The token of `ada`, 40 lower-case hex digits; `None` creates a random one.
    pub token: Option<String>,
    /// Timeout of one delivery.
    pub delivery_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 0).into(), dir: None, token: None, delivery_timeout: Duration::from_secs(15) }
    }
}

/// A running fake Gogs. Dropping it stops it.
#[derive(Debug)]
pub struct FakeGogs {
    instance: Arc<Instance>,
    token: String,
    dir: PathBuf,
    copies: Mutex<BTreeMap<String, WorkingCopy>>,
    stop: CancellationToken,
    deliverer: JoinHandle<()>,
    _temporary: Option<TempDir>,
}

impl FakeGogs {
    /// Starts a fake Gogs on a free port.
    ///
    /// # Errors
    /// See [`FakeGogs::start_with`].
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Settings::default()).await
    }

    /// Starts a fake Gogs. It accepts requests when this returns.
    ///
    /// # Errors
    /// The address is in use, the directory is not empty, or the token is invalid.
    pub async fn start_with(settings: Settings) -> anyhow::Result<Self> {
        let temporary = if settings.dir.is_none() { Some(tempfile::tempdir()?) } else { None };
        let dir = settings.dir.or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned())).context("no folder")?;
        claim_directory(&dir)?;
        let token = settings.token.map_or_else(random_hex::<20>, Ok)?;
        anyhow::ensure!(is_token(&token), "a token of Gogs has 40 lower-case hex digits");
        let listener = TcpListener::bind(settings.listen).await.with_context(|| format!("listening on {}", settings.listen))?;
        let base = format!("http://{}", listener.local_addr()?);
        let (queue, queued) = mpsc::unbounded_channel();
        let instance = Arc::new(Instance::new(base, &dir, queue)?);
        let (bob, eve) = (random_hex::<20>()?, random_hex::<20>()?);
        instance.update(|state| {
            state.add_user(ADMIN, token.clone(), true);
            state.add_user("bob", bob, false);
            state.add_user("eve", eve, false);
        });
        let stop = CancellationToken::new();
        let server = axum::serve(listener, routes(&instance)).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(server.into_future());
        let deliverer = tokio::spawn(delivery::deliver_all(Arc::clone(&instance), queued, settings.delivery_timeout));
        Ok(Self { instance, token, dir, copies: Mutex::default(), stop, deliverer, _temporary: temporary })
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.instance.base
    }

    /// The token of `ada`.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The token of `ada`, `bob` or `eve`.
    ///
    /// # Errors
    /// There is no such user, or it is an organisation.
    pub fn token_of(&self, name: &str) -> anyhow::Result<String> {
        let token =
            self.instance.read(|state| state.users.iter().find(|user| user.name == name).and_then(|user| user.token.clone()));
        token.with_context(|| format!("{name} has no token"))
    }

    /// Creates a user and returns the token.
    ///
    /// # Errors
    /// The name is taken.
    pub fn create_user(&self, name: &str) -> anyhow::Result<String> {
        let token = random_hex::<20>()?;
        self.instance.update(|state| {
            anyhow::ensure!(!state.users.iter().any(|user| user.name.eq_ignore_ascii_case(name)), "there is a {name} already");
            state.add_user(name, token.clone(), false);
            Ok(token)
        })
    }

    /// Grants a user access to a repository.
    ///
    /// # Errors
    /// Either is unknown.
    pub fn grant_access(&self, repository: &str, user: &str, access: Access) -> anyhow::Result<()> {
        let (owner, name) = owner_and_name(repository);
        let id = self.instance.repository(owner, name).with_context(|| format!("there is no {repository}"))?.id;
        self.instance.update(|state| {
            let user = state
                .users
                .iter()
                .find(|it| it.name == user)
                .map(|user| user.id)
                .with_context(|| format!("there is no {user}"))?;
            let repository = state.repositories.iter_mut().find(|it| it.id == id).context("it was just there")?;
            repository.granted.insert(user, access);
            Ok(())
        })
    }

    /// Renames a repository: its id stays, the old name disappears, and Gogs sends no event.
    ///
    /// # Errors
    /// The repository is unknown.
    pub fn rename(&self, repository: &str, new_name: &str) -> anyhow::Result<()> {
        let (owner, name) = owner_and_name(repository);
        let id = self.instance.repository(owner, name).with_context(|| format!("there is no {repository}"))?.id;
        self.instance.update(|state| {
            let repository = state.repositories.iter_mut().find(|it| it.id == id).context("it was just there")?;
            new_name.clone_into(&mut repository.name);
            Ok(())
        })
    }

    /// Makes a repository private or public; Gogs sends no event.
    ///
    /// # Errors
    /// The repository is unknown.
    pub fn set_private(&self, repository: &str, is_private: bool) -> anyhow::Result<()> {
        let (owner, name) = owner_and_name(repository);
        let id = self.instance.repository(owner, name).with_context(|| format!("there is no {repository}"))?.id;
        self.instance.update(|state| {
            let repository = state.repositories.iter_mut().find(|it| it.id == id).context("it was just there")?;
            repository.private = is_private;
            Ok(())
        })
    }

    /// Deletes a repository with its webhooks; Gogs sends no event.
    ///
    /// # Errors
    /// The repository is unknown.
    pub fn delete_repository(&self, repository: &str) -> anyhow::Result<()> {
        let (owner, name) = owner_and_name(repository);
        let id = self.instance.repository(owner, name).with_context(|| format!("there is no {repository}"))?.id;
        self.instance.update(|state| {
            state.hooks.retain(|hook| hook.repository != id);
            state.repositories.retain(|it| it.id != id);
            Ok(())
        })
    }

    /// Sends an event that only a person can cause in a real Gogs: `pull_request`, `release`, ….
    ///
    /// # Errors
    /// The repository is unknown.
    pub fn send_event(&self, repository: &str, event: &str, payload: &serde_json::Value) -> anyhow::Result<()> {
        let (owner, name) = owner_and_name(repository);
        let repository = self.instance.repository(owner, name).with_context(|| format!("there is no {repository}"))?;
        self.instance.queue_event(&repository, event, payload)
    }

    /// Creates an empty public repository: `owner/name`, or `name` owned by `ada`. An unknown owner becomes an organisation.
    ///
    /// # Errors
    /// The repository exists, or the name is invalid.
    pub async fn create_repository(&self, name: &str) -> anyhow::Result<RepositoryObject> {
        let (owner, name) = owner_and_name(name);
        self.instance.create_repository(owner, name, false, "").await
    }

    /// Like [`FakeGogs::create_repository`], but private: `eve` does not see it.
    ///
    /// # Errors
    /// The repository exists, or the name is invalid.
    pub async fn create_private_repository(&self, name: &str) -> anyhow::Result<RepositoryObject> {
        let (owner, name) = owner_and_name(name);
        self.instance.create_repository(owner, name, true, "").await
    }

    /// Commits the files onto a branch (a new one starts at the default branch) and pushes. Returns the commit's id.
    ///
    /// # Errors
    /// git fails.
    pub async fn push(&self, repository: &str, branch: &str, files: &[(&str, &str)], message: &str) -> anyhow::Result<String> {
        let mut copies = self.copies.lock().await;
        let copy = self.copy(&mut copies, repository).await?;
        copy.checkout(branch).await?;
        let sha = copy.commit(files, message).await?;
        copy.git(&["push", "--quiet", "origin", &format!("HEAD:refs/heads/{branch}")]).await?;
        Ok(sha)
    }

    /// Replaces the branch's last commit by another one. Returns the new commit's id.
    ///
    /// # Errors
    /// The branch has only one commit, or git fails.
    pub async fn force_push(
        &self,
        repository: &str,
        branch: &str,
        files: &[(&str, &str)],
        message: &str,
    ) -> anyhow::Result<String> {
        let mut copies = self.copies.lock().await;
        let copy = self.copy(&mut copies, repository).await?;
        copy.checkout(branch).await?;
        copy.git(&["reset", "--quiet", "--hard", "HEAD~1"]).await?;
        let sha = copy.commit(files, message).await?;
        copy.git(&["push", "--quiet", "--force", "origin", &format!("HEAD:refs/heads/{branch}")]).await?;
        Ok(sha)
    }

    /// Deletes a branch.
    ///
    /// # Errors
    /// There is no such branch, or git fails.
    pub async fn delete_branch(&self, repository: &str, branch: &str) -> anyhow::Result<()> {
        let mut copies = self.copies.lock().await;
        let copy = self.copy(&mut copies, repository).await?;
        copy.git(&["push", "--quiet", "origin", "--delete", &format!("refs/heads/{branch}")]).await.map(drop)
    }

    /// Tags the head of a branch; with a message the tag is annotated. Returns the object that the tag's ref points to.
    ///
    /// # Errors
    /// git fails.
    pub async fn tag(&self, repository: &str, branch: &str, tag: &str, message: Option<&str>) -> anyhow::Result<String> {
        let mut copies = self.copies.lock().await;
        let copy = self.copy(&mut copies, repository).await?;
        copy.checkout(branch).await?;
        match message {
            Some(message) => copy.git(&["tag", "--force", "--annotate", "--message", message, "--", tag]).await?,
            None => copy.git(&["tag", "--force", "--", tag]).await?,
        };
        copy.git(&["push", "--quiet", "--force", "origin", &format!("refs/tags/{tag}")]).await?;
        copy.git(&["rev-parse", &format!("refs/tags/{tag}")]).await
    }

    /// A separate clone, for everything that the functions above cannot do. It pushes as `ada`.
    ///
    /// # Errors
    /// git fails.
    pub async fn clone_repository(&self, repository: &str) -> anyhow::Result<WorkingCopy> {
        let folder = self.dir.join("copies").join(random_hex::<8>()?);
        let home = self.instance.home.clone();
        WorkingCopy::open(folder, home, &self.clone_url(repository, &self.token)?, &self.instance.internal_key).await
    }

    /// The clone URL of a repository, with a token as user name.
    ///
    /// # Errors
    /// The names do not form a URL.
    pub fn clone_url(&self, repository: &str, token: &str) -> anyhow::Result<String> {
        let (owner, name) = owner_and_name(repository);
        let mut url = Url::parse(&format!("{}/{owner}/{name}.git", self.url()))?;
        anyhow::ensure!(url.set_username(token).is_ok(), "{url} takes no user name");
        Ok(url.into())
    }

    async fn copy<'a>(
        &self,
        copies: &'a mut BTreeMap<String, WorkingCopy>,
        repository: &str,
    ) -> anyhow::Result<&'a mut WorkingCopy> {
        if !copies.contains_key(repository) {
            copies.insert(repository.to_owned(), self.clone_repository(repository).await?);
        }
        copies.get_mut(repository).context("the working copy was just put there")
    }

    /// All deliveries so far, oldest first.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.instance.read(|state| state.deliveries.clone())
    }

    /// Waits until `fact` is true of the deliveries, and returns them.
    ///
    /// # Errors
    /// Times out after five minutes.
    pub async fn wait_for_deliveries(&self, what: &str, fact: impl Fn(&[Delivery]) -> bool) -> anyhow::Result<Vec<Delivery>> {
        self.instance.wait_for_timeout(what, |state| fact(&state.deliveries).then(|| state.deliveries.clone())).await
    }

    /// Waits until every delivery so far was sent or failed, and returns all.
    ///
    /// # Errors
    /// Times out after five minutes.
    pub async fn wait_until_delivered(&self) -> anyhow::Result<Vec<Delivery>> {
        self.wait_for_deliveries("every delivery to be sent", |deliveries| deliveries.iter().all(|it| !it.attempts.is_empty()))
            .await
    }

    /// Sends a delivery again with the same id, body and signature, like the button in Gogs.
    ///
    /// # Errors
    /// There is no such delivery.
    pub fn redeliver(&self, uuid: &str) -> anyhow::Result<()> {
        self.instance.redeliver(uuid)
    }

    /// Sends a test delivery, like the button in Gogs. Returns the id of the delivery.
    ///
    /// # Errors
    /// There is no such webhook.
    pub async fn test_hook(&self, id: u64) -> anyhow::Result<String> {
        self.instance.test_hook(id).await
    }

    /// Changes the URL of a webhook, as a person can do on its page.
    ///
    /// # Errors
    /// There is no such webhook.
    pub fn set_hook_url(&self, id: u64, url: &str) -> anyhow::Result<()> {
        self.instance.update(|state| {
            state.hooks.iter_mut().find(|hook| hook.id == id).context("no such hook")?.url = url.to_owned();
            Ok(())
        })
    }

    /// The injected faults.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.instance.read(|state| state.faults)
    }

    /// Makes every request fail with 503, or ends that. The fake Gogs' own pushes still succeed and cause events.
    pub fn set_offline(&self, away: bool) {
        self.instance.update(|state| state.faults.offline = away);
    }

    /// Rejects all tokens, or accepts them again.
    pub fn set_token_revoked(&self, dead: bool) {
        self.instance.update(|state| state.faults.token_revoked = dead);
    }

    /// Delays every response.
    pub fn set_delay(&self, delay: Duration) {
        self.instance.update(|state| state.faults.delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    }

    /// Replaces the injected faults.
    pub fn set_faults(&self, faults: Faults) {
        self.instance.update(|state| state.faults = faults);
    }

    /// The URL of an inbox.
    #[must_use]
    pub fn inbox_url(&self, name: &str) -> String {
        format!("{}/control/inbox/{name}", self.url())
    }

    /// The notifications in an inbox, oldest first.
    #[must_use]
    pub fn inbox(&self, name: &str) -> Vec<Received> {
        self.instance.read(|state| state.inboxes.get(name).map(|inbox| inbox.received.clone()).unwrap_or_default())
    }

    /// Waits until at least `count` notifications arrived, and returns all.
    ///
    /// # Errors
    /// Times out after five minutes.
    pub async fn wait_for_inbox(&self, name: &str, count: usize) -> anyhow::Result<Vec<Received>> {
        let what = format!("{count} notifications in {name}");
        let fact =
            |state: &state::State| state.inboxes.get(name).filter(|it| it.received.len() >= count).map(|it| it.received.clone());
        self.instance.wait_for_timeout(&what, fact).await
    }

    /// Sets the status of an inbox's next responses.
    pub fn set_inbox_status(&self, name: &str, status: u16) {
        self.instance.update(|state| state.inboxes.entry(name.to_owned()).or_default().status = status);
    }
}

impl Drop for FakeGogs {
    fn drop(&mut self) {
        self.stop.cancel();
        self.deliverer.abort();
    }
}

fn routes(instance: &Arc<Instance>) -> axum::Router {
    let routes = api::routes().merge(smart_http::routes()).merge(control_api::routes()).merge(pages::routes());
    routes
        .layer(axum::middleware::from_fn_with_state(Arc::clone(instance), control_api::inject_faults))
        .with_state(Arc::clone(instance))
}

fn claim_directory(dir: &std::path::Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let in_use = std::fs::read_dir(dir)?.next().is_some();
    anyhow::ensure!(!in_use, "{} is not empty: the fake Gogs needs a new or an empty directory", dir.display());
    std::fs::create_dir(dir.join("home"))?;
    Ok(())
}

fn is_token(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name without an owner belongs to the administrator.
fn owner_and_name(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or((ADMIN, name))
}
