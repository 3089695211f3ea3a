//! A practice Gogs: speaks Gogs' API (the routes that Beespace uses), git over HTTP, and signed hooks as they were recorded from
//! Gogs 0.14.3, quirks included. Hooks go out one after the other for the whole instance and are never retried.
//!
//! | file | holds |
//! |---|---|
//! | [`state`] | users, repositories, hooks, tasks: what Gogs keeps in its database |
//! | `api` | `/api/v1/…` |
//! | `git_http` | git's smart protocol, through git's own CGI program |
//! | `push` | what a push changed, and the hooks that tell of it |
//! | `payload` | the JSON of those hooks |
//! | [`delivery`] | the queue, the request, the signature |
//! | `web` | the two buttons beside a hook, and a page about a repository |
//! | `working_copy` | pushes files as a developer would |

mod api;
pub mod delivery;
mod git_http;
mod payload;
mod push;
pub mod state;
mod web;
mod working_copy;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use delivery::Task;
use state::State;
pub use state::{Level, Mood, Repo};

/// A running practice Gogs. It ends when this is dropped.
#[derive(Debug)]
pub struct PracticeGogs {
    inner: Arc<Inner>,
    token: String,
    tasks: Vec<JoinHandle<()>>,
    /// Kept for its end: the repositories lie in it.
    _folder: Option<tempfile::TempDir>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    address: SocketAddr,
    state: Mutex<State>,
    queue: mpsc::UnboundedSender<String>,
    /// A delivery has ended.
    delivered: Notify,
    /// Pushes are taken one after the other, so that each sees what it changed.
    pushing: tokio::sync::Mutex<()>,
}

/// Where and how to start.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    /// None: a temporary directory.
    pub folder: Option<PathBuf>,
    /// Login of the site's administrator, who owns the token.
    pub admin: String,
    /// None: a random one.
    pub token: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), folder: None, admin: "root1".to_owned(), token: None }
    }
}

impl PracticeGogs {
    /// Starts one on a free port of the loopback interface.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await.unwrap_or_else(|error| panic!("the practice Gogs does not start: {error:#}"))
    }

    /// Starts one.
    ///
    /// # Errors
    /// Where the address is taken or the directory cannot be made.
    pub async fn start_with(options: Options) -> Result<Self> {
        let folder = if options.folder.is_none() { Some(tempfile::tempdir()?) } else { None };
        let root = options.folder.or_else(|| folder.as_ref().map(|folder| folder.path().to_owned())).unwrap_or_default();
        std::fs::create_dir_all(root.join("repositories"))?;
        std::fs::create_dir_all(root.join("home"))?;
        let listener =
            tokio::net::TcpListener::bind(options.listen).await.with_context(|| format!("{} is taken", options.listen))?;
        let address = listener.local_addr()?;
        let mut state = State::new(format!("http://{address}"));
        let admin = state.add_user(&options.admin, true);
        let token = options.token.unwrap_or_else(state::random_token);
        state.tokens.insert(token.clone(), admin);
        let (queue, waiting) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            root,
            address,
            state: Mutex::new(state),
            queue,
            delivered: Notify::new(),
            pushing: tokio::sync::Mutex::new(()),
        });
        let app = web::router(Arc::clone(&inner));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        let deliverer = tokio::spawn(delivery::deliver_hooks(Arc::clone(&inner), waiting));
        Ok(Self { inner, token, tasks: vec![server, deliverer], _folder: folder })
    }

    /// Its address, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// The administrator's token.
    #[must_use]
    pub fn token(&self) -> String {
        self.token.clone()
    }

    /// Makes an empty repository; the owner is made where there is none.
    pub async fn create_repo(&self, owner: &str, name: &str) -> Repo {
        let repo = self.inner.state().add_repository(owner, name);
        self.inner.make_bare(&repo).await.unwrap_or_else(|error| panic!("no repository {owner}/{name}: {error:#}"));
        repo
    }

    /// Another user, with a token of their own.
    pub fn create_user(&self, login: &str) -> String {
        let mut state = self.inner.state();
        let user = state.add_user(login, false);
        let token = state::random_token();
        state.tokens.insert(token.clone(), user);
        token
    }

    /// Lets a user do something in a repository.
    pub fn allow(&self, repo: &Repo, login: &str, level: Level) {
        let mut state = self.inner.state();
        let user = state.add_user(login, false);
        state.levels.insert((repo.id, user), level);
    }

    /// Renames a repository: its id stays, its old name is gone.
    pub fn rename(&self, repo: &Repo, name: &str) -> Repo {
        self.inner.state().rename(repo.id, name)
    }

    /// How it behaves from now on.
    pub fn behave(&self, mood: Mood) {
        self.inner.state().mood = mood;
    }

    /// Takes a token back.
    pub fn revoke(&self, token: &str) {
        self.inner.state().tokens.remove(token);
    }

    /// All hook tasks so far, oldest first.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Task> {
        self.inner.state().tasks.clone()
    }

    /// Waits until every task has been sent, and returns them.
    pub async fn settled(&self) -> Vec<Task> {
        loop {
            let changed = self.inner.delivered.notified();
            let tasks = self.deliveries();
            if tasks.iter().all(|task| task.answer.is_some()) {
                return tasks;
            }
            changed.await;
        }
    }

    /// A person's click on "Redelivery": the same id, body and signature once more.
    pub fn redeliver(&self, uuid: &str) {
        self.inner.redeliver(uuid);
    }

    /// A person's click on "Test delivery" of every hook of the repository.
    pub async fn test_delivery(&self, repo: &Repo) {
        self.inner.test_delivery(repo.id).await;
    }

    /// Tells the hooks of a repository something that only the web interface of a Gogs can cause (`pull_request`, `release`, …).
    pub fn tell(&self, repo: &Repo, event: &str, payload: &serde_json::Value) {
        self.inner.tell(repo.id, event, payload);
    }

    /// A working copy of a repository, for its administrator.
    #[must_use]
    pub fn working_copy(&self, repo: &Repo) -> working_copy::WorkingCopy {
        working_copy::WorkingCopy::new(&self.url(), &self.token, repo)
    }

    /// Commits the files on a branch and pushes it. Returns the commit.
    pub async fn push(&self, repo: &Repo, branch: &str, files: &[(&str, &str)], message: &str) -> String {
        let copy = self.working_copy(repo);
        copy.open(branch).await;
        copy.write(files);
        copy.commit(message).await;
        copy.push(&[&format!("+HEAD:refs/heads/{branch}")]).await;
        copy.git(&["rev-parse", "HEAD"]).await
    }

    /// Where the bare repository lies.
    #[must_use]
    pub fn bare(&self, repo: &Repo) -> PathBuf {
        self.inner.bare(repo.id)
    }
}

impl Drop for PracticeGogs {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bare(&self, repository: u64) -> PathBuf {
        self.root.join("repositories").join(format!("{repository}.git"))
    }

    async fn make_bare(&self, repo: &Repo) -> Result<()> {
        let bare = self.bare(repo.id);
        std::fs::create_dir_all(&bare)?;
        self.git(&bare, &["init", "--quiet", "--bare", "--template=", &format!("--initial-branch={}", repo.default_branch)])
            .await?;
        Ok(())
    }

    /// Runs git with nothing of this machine's configuration.
    async fn git(&self, directory: &Path, arguments: &[&str]) -> Result<String> {
        let output = working_copy::command(directory, &self.root.join("home")).args(arguments).output().await?;
        anyhow::ensure!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
