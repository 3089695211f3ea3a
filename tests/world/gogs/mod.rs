//! A practice Gogs: the real thing's API, git over HTTP and signed webhooks as recorded from Gogs 0.14.3, quirks included, in one
//! process without a database. It listens on loopback and forgets everything when it ends.
//!
//! Three people: `ada` administers everything, `bob` reads everything, `eve` sees only what is public.
//!
//! | what | where |
//! |---|---|
//! | REST API | `api`, `answer`, `caller` |
//! | git over HTTP | `smart_http`, `git` |
//! | from moved refs to payloads | `pushed`, `commit`, `payload`, `go_json` |
//! | signed and serial sending | `delivery` |
//! | pages to click on | `pages` |
//! | handles for whoever practises | [`FakeGogs`], `practice` |

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

/// Who administers the practice Gogs and owns what is created without an owner.
pub const ADMIN: &str = "ada";

/// How to start one.
#[derive(Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    /// Empty or not there yet; a temporary one where there is none.
    pub dir: Option<PathBuf>,
    /// `ada`'s token, 40 lower-case hex digits; random where there is none.
    pub token: Option<String>,
    /// How long a receiver may take.
    pub delivery_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 0).into(), dir: None, token: None, delivery_timeout: Duration::from_secs(15) }
    }
}

/// A running practice Gogs. Dropping it ends it.
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
    /// Starts one on a port of the system's choice.
    ///
    /// # Errors
    /// See [`FakeGogs::start_with`].
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Settings::default()).await
    }

    /// Starts one; it answers when this returns.
    ///
    /// # Errors
    /// Where it cannot listen there, the folder is in use, or the token is none.
    pub async fn start_with(settings: Settings) -> anyhow::Result<Self> {
        let temporary = if settings.dir.is_none() { Some(tempfile::tempdir()?) } else { None };
        let dir = settings.dir.or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned())).context("no folder")?;
        claim_directory(&dir)?;
        let token = settings.token.map_or_else(random_hex::<20>, Ok)?;
        anyhow::ensure!(is_token(&token), "a token of Gogs is 40 lower-case hex digits");
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

    /// Where it is, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.instance.base
    }

    /// `ada`'s token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The token of `ada`, `bob` or `eve`.
    ///
    /// # Errors
    /// Where there is nobody of this name, or it is an organisation.
    pub fn token_of(&self, name: &str) -> anyhow::Result<String> {
        let token =
            self.instance.read(|state| state.users.iter().find(|user| user.name == name).and_then(|user| user.token.clone()));
        token.with_context(|| format!("{name} has no token"))
    }

    /// Makes another person and returns the token.
    ///
    /// # Errors
    /// Where the name is taken.
    pub fn create_user(&self, name: &str) -> anyhow::Result<String> {
        let token = random_hex::<20>()?;
        self.instance.update(|state| {
            anyhow::ensure!(!state.users.iter().any(|user| user.name.eq_ignore_ascii_case(name)), "there is a {name} already");
            state.add_user(name, token.clone(), false);
            Ok(token)
        })
    }

    /// Lets somebody do something in a repository.
    ///
    /// # Errors
    /// Where either is unknown.
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

    /// Gives a repository another name: its id stays, the old name is gone, and Gogs tells nobody.
    ///
    /// # Errors
    /// Where it is unknown.
    pub fn rename(&self, repository: &str, new_name: &str) -> anyhow::Result<()> {
        let (owner, name) = owner_and_name(repository);
        let id = self.instance.repository(owner, name).with_context(|| format!("there is no {repository}"))?.id;
        self.instance.update(|state| {
            let repository = state.repositories.iter_mut().find(|it| it.id == id).context("it was just there")?;
            new_name.clone_into(&mut repository.name);
            Ok(())
        })
    }

    /// Deletes a repository, its hooks with it; Gogs tells nobody.
    ///
    /// # Errors
    /// Where it is unknown.
    pub fn delete_repository(&self, repository: &str) -> anyhow::Result<()> {
        let (owner, name) = owner_and_name(repository);
        let id = self.instance.repository(owner, name).with_context(|| format!("there is no {repository}"))?.id;
        self.instance.update(|state| {
            state.hooks.retain(|hook| hook.repository != id);
            state.repositories.retain(|it| it.id != id);
            Ok(())
        })
    }

    /// Tells a repository's hooks something that only a person at a real Gogs can cause: `pull_request`, `release`, ….
    ///
    /// # Errors
    /// Where the repository is unknown.
    pub fn send_event(&self, repository: &str, event: &str, payload: &serde_json::Value) -> anyhow::Result<()> {
        let (owner, name) = owner_and_name(repository);
        let repository = self.instance.repository(owner, name).with_context(|| format!("there is no {repository}"))?;
        self.instance.queue_event(&repository, event, payload)
    }

    /// Makes an empty public repository, `owner/name`, or `name` of `ada`. An unknown owner becomes an organisation.
    ///
    /// # Errors
    /// Where it exists, or the name cannot be one.
    pub async fn create_repository(&self, name: &str) -> anyhow::Result<RepositoryObject> {
        let (owner, name) = owner_and_name(name);
        self.instance.create_repository(owner, name, false, "").await
    }

    /// As [`FakeGogs::create_repository`], but private: `eve` does not see it.
    ///
    /// # Errors
    /// Where it exists, or the name cannot be one.
    pub async fn create_private_repository(&self, name: &str) -> anyhow::Result<RepositoryObject> {
        let (owner, name) = owner_and_name(name);
        self.instance.create_repository(owner, name, true, "").await
    }

    /// Commits the files onto a branch (a new one starts at the default branch) and pushes. Returns the commit's id.
    ///
    /// # Errors
    /// Where git fails.
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
    /// Where the branch has no commit before its last one, or git fails.
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
    /// Where there is none, or git fails.
    pub async fn delete_branch(&self, repository: &str, branch: &str) -> anyhow::Result<()> {
        let mut copies = self.copies.lock().await;
        let copy = self.copy(&mut copies, repository).await?;
        copy.git(&["push", "--quiet", "origin", "--delete", &format!("refs/heads/{branch}")]).await.map(drop)
    }

    /// Tags the head of a branch; a message makes the tag an annotated one. Returns what the tag's ref holds.
    ///
    /// # Errors
    /// Where git fails.
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

    /// A clone of one's own, for what the functions above do not do. It pushes as `ada`.
    ///
    /// # Errors
    /// Where git fails.
    pub async fn clone_repository(&self, repository: &str) -> anyhow::Result<WorkingCopy> {
        let folder = self.dir.join("copies").join(random_hex::<8>()?);
        let home = self.instance.home.clone();
        WorkingCopy::open(folder, home, &self.clone_url(repository, &self.token)?, &self.instance.internal_key).await
    }

    /// Where git finds a repository, with a token as user name.
    ///
    /// # Errors
    /// Where the names make no address.
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

    /// Every delivery made so far, oldest first.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.instance.read(|state| state.deliveries.clone())
    }

    /// Waits until `fact` holds of the deliveries, and returns them.
    ///
    /// # Errors
    /// After half a minute.
    pub async fn wait_for_deliveries(&self, what: &str, fact: impl Fn(&[Delivery]) -> bool) -> anyhow::Result<Vec<Delivery>> {
        self.instance.wait_for_timeout(what, |state| fact(&state.deliveries).then(|| state.deliveries.clone())).await
    }

    /// Waits until every delivery made so far was sent and answered, or was given up, and returns all.
    ///
    /// # Errors
    /// After half a minute.
    pub async fn wait_until_delivered(&self) -> anyhow::Result<Vec<Delivery>> {
        self.wait_for_deliveries("every delivery to be sent", |deliveries| deliveries.iter().all(|it| !it.attempts.is_empty()))
            .await
    }

    /// Sends a delivery again: same id, body and signature, as the button in Gogs does.
    ///
    /// # Errors
    /// Where there is no such delivery.
    pub fn redeliver(&self, uuid: &str) -> anyhow::Result<()> {
        self.instance.redeliver(uuid)
    }

    /// The button "Test delivery" of a hook's page. Returns the delivery's id.
    ///
    /// # Errors
    /// Where there is no such hook.
    pub async fn test_hook(&self, id: u64) -> anyhow::Result<String> {
        self.instance.test_hook(id).await
    }

    /// Lets a hook point elsewhere, as somebody does on its page.
    ///
    /// # Errors
    /// Where there is no such hook.
    pub fn set_hook_url(&self, id: u64, url: &str) -> anyhow::Result<()> {
        self.instance.update(|state| {
            state.hooks.iter_mut().find(|hook| hook.id == id).context("no such hook")?.url = url.to_owned();
            Ok(())
        })
    }

    /// How it misbehaves now.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.instance.read(|state| state.faults)
    }

    /// Everything is answered with 503 from now on, or no longer. Its own pushes still go through and are told of.
    pub fn set_offline(&self, away: bool) {
        self.instance.update(|state| state.faults.offline = away);
    }

    /// No token is accepted from now on, or all are again.
    pub fn set_token_revoked(&self, dead: bool) {
        self.instance.update(|state| state.faults.token_revoked = dead);
    }

    /// Everything is answered this much later from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.instance.update(|state| state.faults.delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    }

    /// Every way to misbehave at once.
    pub fn set_faults(&self, switches: Faults) {
        self.instance.update(|state| state.faults = switches);
    }

    /// Where notifications can be sent to.
    #[must_use]
    pub fn inbox_url(&self, name: &str) -> String {
        format!("{}/practice/inbox/{name}", self.url())
    }

    /// What arrived in an inbox, oldest first.
    #[must_use]
    pub fn inbox(&self, name: &str) -> Vec<Received> {
        self.instance.read(|state| state.inboxes.get(name).map(|inbox| inbox.received.clone()).unwrap_or_default())
    }

    /// Waits until at least `count` notifications arrived, and returns all.
    ///
    /// # Errors
    /// After half a minute.
    pub async fn wait_for_inbox(&self, name: &str, count: usize) -> anyhow::Result<Vec<Received>> {
        let what = format!("{count} notifications in {name}");
        let fact =
            |state: &state::State| state.inboxes.get(name).filter(|it| it.received.len() >= count).map(|it| it.received.clone());
        self.instance.wait_for_timeout(&what, fact).await
    }

    /// What an inbox answers with from now on.
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
    anyhow::ensure!(
        !in_use,
        "{} is not empty: the practice Gogs takes up nothing old, give it a folder of its own",
        dir.display()
    );
    std::fs::create_dir(dir.join("home"))?;
    Ok(())
}

fn is_token(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What is named without an owner is the admin's.
fn owner_and_name(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or((ADMIN, name))
}
