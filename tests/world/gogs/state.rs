//! What Gogs keeps in its database.

use std::collections::{BTreeMap, HashMap};

use super::delivery::Task;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Well,
    /// Answers 502 to everything, as a proxy before a dead Gogs does.
    Away,
    /// Takes no token any more.
    TokenDead,
    /// Answers the API with a page and 200: the user is prohibited from signing in.
    LoginProhibited,
    /// Answers the API with a redirect.
    Redirecting,
    /// Hooks stay in the queue: what is pushed is told when it is well again.
    HooksStalled,
}

/// What a user may do in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Read,
    Write,
    Admin,
}

#[derive(Debug, Clone)]
pub struct User {
    pub id: u64,
    pub login: String,
    pub is_admin: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    pub id: u64,
    pub owner: String,
    pub name: String,
    pub default_branch: String,
    pub is_private: bool,
}

#[derive(Debug, Clone)]
pub struct Hook {
    pub id: u64,
    pub repository: u64,
    pub kind: String,
    pub url: String,
    pub content_type: String,
    pub secret: String,
    pub events: Vec<String>,
    pub active: bool,
}

/// Users, repositories, hooks, tasks.
#[derive(Debug)]
pub struct State {
    pub(super) url: String,
    pub(super) users: BTreeMap<u64, User>,
    pub(super) repositories: BTreeMap<u64, Repo>,
    pub(super) hooks: BTreeMap<u64, Hook>,
    pub(super) tokens: HashMap<String, u64>,
    pub(super) levels: HashMap<(u64, u64), Level>,
    pub(super) tasks: Vec<Task>,
    pub(super) mood: Mood,
    next_id: u64,
}

impl State {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            users: BTreeMap::new(),
            repositories: BTreeMap::new(),
            hooks: BTreeMap::new(),
            tokens: HashMap::new(),
            levels: HashMap::new(),
            tasks: Vec::new(),
            mood: Mood::default(),
            next_id: 1,
        }
    }

    /// One counter for all kinds: an id that is taken for another kind's is found out.
    pub(super) fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The user's id; made where there is none.
    pub(super) fn add_user(&mut self, login: &str, is_admin: bool) -> u64 {
        if let Some(user) = self.user(login) {
            return user.id;
        }
        let id = self.id();
        self.users.insert(id, User { id, login: login.to_owned(), is_admin });
        id
    }

    pub(super) fn user(&self, login: &str) -> Option<&User> {
        self.users.values().find(|user| user.login.eq_ignore_ascii_case(login))
    }

    pub(super) fn add_repository(&mut self, owner: &str, name: &str) -> Repo {
        self.add_user(owner, false);
        let id = self.id();
        let repo =
            Repo { id, owner: owner.to_owned(), name: name.to_owned(), default_branch: "master".to_owned(), is_private: false };
        self.repositories.insert(id, repo.clone());
        repo
    }

    pub(super) fn rename(&mut self, id: u64, name: &str) -> Repo {
        let repo = self.repositories.get_mut(&id).unwrap_or_else(|| panic!("no repository {id}"));
        name.clone_into(&mut repo.name);
        repo.clone()
    }

    /// Upper and lower case are one, as in Gogs.
    pub(super) fn repository(&self, owner: &str, name: &str) -> Option<&Repo> {
        let is = |repo: &&Repo| repo.owner.eq_ignore_ascii_case(owner) && repo.name.eq_ignore_ascii_case(name);
        self.repositories.values().find(is)
    }

    /// What a user may do there; none where they may not know of it.
    pub(super) fn level(&self, user: u64, repo: &Repo) -> Option<Level> {
        let person = self.users.get(&user)?;
        if person.is_admin || person.login.eq_ignore_ascii_case(&repo.owner) {
            return Some(Level::Admin);
        }
        self.levels.get(&(repo.id, user)).copied().or((!repo.is_private).then_some(Level::Read))
    }
}

/// 40 lower-case hex digits.
pub(super) fn random_token() -> String {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).unwrap_or_else(|error| panic!("no random bytes: {error}"));
    hex::encode(bytes)
}
