//! The state of the fake Gogs, and the lock around it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::delivery::Delivery;
use super::git;
use super::hook::Hook;
use super::inbox::Inbox;
use super::payload::Push;
use super::pull_request::PullRequest;
use super::repository::{Access, FIRST_BRANCH, Repository, RepositoryObject};
use super::user::User;

/// How long a test waits for an event before it fails. Only a failing test waits as long.
const WAIT_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) users: Vec<User>,
    pub(super) repositories: Vec<Repository>,
    pub(super) pulls: Vec<PullRequest>,
    pub(super) hooks: Vec<Hook>,
    ids: u64,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) inboxes: BTreeMap<String, Inbox>,
    pub(super) faults: Faults,
}

/// Injected faults. Requests of the fake Gogs itself (its own pushes) and to `/control/…` are not affected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Every request fails with 503.
    pub offline: bool,
    /// Every token is rejected with 401.
    pub token_revoked: bool,
    /// Every response is delayed by this many milliseconds.
    pub delay_ms: u64,
    /// The API returns an HTML page and 200, as for a user who is prohibited from signing in.
    pub login_prohibited: bool,
    /// The API redirects to an HTML page.
    pub redirects: bool,
    /// git over HTTP is refused with 403, as with `DISABLE_HTTP_GIT`.
    pub http_git_disabled: bool,
    /// Deliveries are queued and sent when this is reset.
    pub deliveries_paused: bool,
    /// The ref of a pull request is updated this many milliseconds after its webhook was answered.
    pub pull_ref_delay_ms: u64,
    /// Gogs deletes the ref of a pull request and fails to create it again.
    pub pull_refs_lost: bool,
}

impl State {
    /// One counter for all kinds, so that an id of the wrong kind finds nothing.
    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Adds a user with a token.
    pub(super) fn add_user(&mut self, name: &str, token: String, is_admin: bool) {
        let (id, email) = (self.next_id(), format!("{name}@example.com"));
        self.users.push(User { id, name: name.to_owned(), email, token: Some(token), is_admin });
    }
}

#[derive(Debug)]
pub(super) struct Instance {
    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub(super) base: String,
    /// Holds `{owner}/{name}.git`.
    pub(super) root: PathBuf,
    /// The home directory of every git process.
    pub(super) home: PathBuf,
    /// The secret value of the header `x-fake-gogs-internal` on the fake Gogs' own requests.
    pub(super) internal_key: String,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    queue: mpsc::UnboundedSender<String>,
}

impl Instance {
    pub(super) fn new(base: String, dir: &std::path::Path, queue: mpsc::UnboundedSender<String>) -> anyhow::Result<Self> {
        Ok(Self {
            base,
            root: dir.join("repositories"),
            home: dir.join("home"),
            internal_key: random_hex::<20>()?,
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            queue,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state())
    }

    /// Changes the state and wakes everyone who waits for a condition.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_replace(());
        result
    }

    /// Waits until `fact` returns a value.
    pub(super) async fn wait_for<T>(&self, fact: impl Fn(&State) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(found) = self.read(&fact) {
                return found;
            }
            // This cannot fail: the sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    /// Like [`Instance::wait_for`], with a timeout.
    ///
    /// # Errors
    /// Times out after five minutes; the error names `what`.
    pub(super) async fn wait_for_timeout<T>(&self, what: &str, fact: impl Fn(&State) -> Option<T>) -> anyhow::Result<T> {
        let found = tokio::time::timeout(WAIT_TIMEOUT, self.wait_for(fact)).await;
        found.with_context(|| format!("timed out after {} s while waiting for {what}", WAIT_TIMEOUT.as_secs()))
    }

    pub(super) fn user_with_token(&self, token: &str) -> Option<User> {
        let live = |state: &State| state.users.iter().find(|user| user.token.as_deref() == Some(token)).cloned();
        self.read(live)
    }

    /// A repository by owner and name, case-insensitively as in Gogs.
    pub(super) fn repository(&self, owner: &str, name: &str) -> Option<Repository> {
        let wanted = format!("{owner}/{name}");
        self.read(|state| state.repositories.iter().find(|it| it.full_name().eq_ignore_ascii_case(&wanted)).cloned())
    }

    /// A repository, if the user may read it.
    pub(super) fn readable_repository(&self, owner: &str, name: &str, user: Option<&User>) -> Option<(Repository, Access)> {
        let repository = self.repository(owner, name)?;
        let access = repository.access(user);
        (access >= Access::Read).then_some((repository, access))
    }

    /// Creates an empty repository. If it is private, `bob` may read it and `eve` may not. An unknown owner becomes
    /// an organisation.
    ///
    /// # Errors
    /// The name is taken or invalid, or git fails.
    pub(super) async fn create_repository(
        &self,
        owner: &str,
        name: &str,
        private: bool,
        description: &str,
    ) -> anyhow::Result<RepositoryObject> {
        anyhow::ensure!(
            is_name(owner) && is_name(name),
            "`{owner}/{name}` is not a valid repository name: use letters, digits, `-`, `_` and `.`"
        );
        anyhow::ensure!(self.repository(owner, name).is_none(), "repository already exists [name: {name}]");
        let path = self.root.join(owner.to_lowercase()).join(format!("{}.git", name.to_lowercase()));
        git::init_bare(&self.home, &path, FIRST_BRANCH).await?;
        Ok(self.update(|state| {
            let owner = owner_by_name(state, owner);
            let now = now();
            let repository = Repository {
                id: state.next_id(),
                owner,
                name: name.to_owned(),
                description: description.to_owned(),
                private,
                granted: state.users.iter().filter(|user| user.name == "bob").map(|user| (user.id, Access::Read)).collect(),
                empty: true,
                default_branch: FIRST_BRANCH.to_owned(),
                created_at: now.clone(),
                updated_at: now,
                path,
                receiving: Arc::default(),
                parent: None,
            };
            let object = repository.object(&self.base);
            state.repositories.push(repository);
            object
        }))
    }

    /// Queues a delivery for every webhook of the repository that receives the event.
    pub(super) fn queue_event(&self, repository: &Repository, event: &str, payload: &impl Serialize) -> anyhow::Result<()> {
        let json = super::go_json::indented(payload)?;
        let hooks = self.read(|state| state.hooks.clone());
        for hook in hooks.iter().filter(|hook| hook.repository == repository.id && hook.wants(event)) {
            self.enqueue(Delivery::new(random_uuid()?, hook, repository.full_name(), event, &json))?;
        }
        Ok(())
    }

    fn enqueue(&self, delivery: Delivery) -> anyhow::Result<()> {
        let uuid = delivery.uuid.clone();
        self.update(|state| state.deliveries.push(delivery));
        self.queue.send(uuid).context("the task that sends deliveries has ended")
    }

    /// Sends a delivery again: same id, body and signature.
    ///
    /// # Errors
    /// There is no such delivery.
    pub(super) fn redeliver(&self, uuid: &str) -> anyhow::Result<()> {
        let known = self.read(|state| state.deliveries.iter().any(|delivery| delivery.uuid == uuid));
        anyhow::ensure!(known, "there is no delivery {uuid}");
        self.queue.send(uuid.to_owned()).context("the task that sends deliveries has ended")
    }

    /// Sends a test delivery to this webhook only. Returns the id of the delivery.
    ///
    /// # Errors
    /// There is no such webhook, or git fails.
    pub(super) async fn test_hook(&self, id: u64) -> anyhow::Result<String> {
        let hook = self
            .read(|state| state.hooks.iter().find(|hook| hook.id == id).cloned())
            .with_context(|| format!("there is no webhook {id}"))?;
        let repository = self
            .read(|state| state.repositories.iter().find(|it| it.id == hook.repository).cloned())
            .context("the repository of the webhook is missing")?;
        let sender = self.read(|state| state.users.iter().find(|user| user.is_admin).cloned()).context("there is no admin")?;
        let object = repository.object(&self.base);
        let head = if repository.empty { None } else { self.head_of(&repository, &object.html_url).await? };
        let push = Push::test(head, object, sender.object(&self.base));
        let delivery = Delivery::new(random_uuid()?, &hook, repository.full_name(), "push", &super::go_json::indented(&push)?);
        let uuid = delivery.uuid.clone();
        self.enqueue(delivery)?;
        Ok(uuid)
    }

    async fn head_of(&self, repository: &Repository, html_url: &str) -> anyhow::Result<Option<super::commit::CommitObject>> {
        let users = self.read(|state| state.users.clone());
        let reader = super::commit::Reader { home: &self.home, repository: &repository.path, html_url, users: &users };
        let branch = format!("refs/heads/{}", repository.default_branch);
        Ok(reader.log_with_files(&branch, 1).await?.pop())
    }
}

fn owner_by_name(state: &mut State, name: &str) -> User {
    if let Some(user) = state.users.iter().find(|user| user.name.eq_ignore_ascii_case(name)) {
        return user.clone();
    }
    let id = state.next_id();
    let organisation = User { id, name: name.to_owned(), email: String::new(), token: None, is_admin: false };
    state.users.push(organisation.clone());
    organisation
}

fn is_name(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    plain && !text.is_empty() && !text.starts_with(['-', '.']) && !text.ends_with(".git")
}

/// The current time as Go writes it; the server's time zone is UTC.
pub(super) fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// # Errors
/// The system provides no randomness.
pub(super) fn random_hex<const BYTES: usize>() -> anyhow::Result<String> {
    let mut bytes = [0_u8; BYTES];
    getrandom::fill(&mut bytes).context("the system provides no randomness")?;
    Ok(hex::encode(bytes))
}

fn random_uuid() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).context("the system provides no randomness")?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
}
