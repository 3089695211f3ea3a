//! Mirrors of repositories, with hostile names and files in them.

use std::future::{Ready, ready};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use beespace::clock::now;
use beespace::source::{
    CheckoutRequest, Collection, EntryKind, FetchLimits, ForgeCredentials, Lookup, Mirror, Mirrors, PushRange, Scratch,
    SourceError, SourceLimits,
};
use beespace_core::build::{Base, Head};
use beespace_core::event::Claim;
use beespace_core::ids::{BuildId, RepositoryId, Sha};
use beespace_core::pipeline::eval_when::ChangedPaths;
use beespace_core::trust::CommitLocation;
use beespace_tests::gogs::{FakeGogs, RepositoryObject};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use url::Url;

struct World {
    gogs: FakeGogs,
    repo: RepositoryObject,
    mirror: Mirror,
    folder: tempfile::TempDir,
}

async fn world() -> World {
    let gogs = FakeGogs::start().await.unwrap();
    let repo = gogs.create_private_repository("acme/app").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mirror = mirrors(&folder).of(RepositoryId(repo.id));
    World { gogs, repo, mirror, folder }
}

fn mirrors(folder: &tempfile::TempDir) -> Mirrors {
    Mirrors::new(folder.path().join("mirrors"), folder.path().join("home"), None)
}

/// A clone URL that needs no confirmation.
fn at(url: &Url) -> Ready<Result<Url, SourceError>> {
    ready(Ok(url.clone()))
}

impl World {
    fn url(&self) -> Url {
        format!("{}/acme/app.git", self.gogs.url()).parse().unwrap()
    }

    async fn fetch(&self) -> Result<(), SourceError> {
        self.mirror.fetch(at(&self.url()), &ForgeCredentials::token(self.gogs.token().to_owned().into())).await
    }

    fn scratch(&self) -> Scratch {
        Scratch { directory: self.folder.path().join("scratch"), reserve: 0 }
    }

    /// The same mirror with other limits.
    fn limited(&self, limits: SourceLimits) -> Mirror {
        mirrors(&self.folder).with_limits(limits).of(RepositoryId(self.repo.id))
    }

    async fn push(&self, branch: &str, files: &[(&str, &str)]) -> Sha {
        Sha::new(&self.gogs.push("acme/app", branch, files, "a change\n\nwith a body").await.unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_commit_is_fetched_and_pinned() {
    let world = world().await;
    let sha = world.push("master", &[("a.txt", "one\n"), ("sub/b.sh", "two")]).await;
    assert_eq!(world.mirror.find(&sha, "refs/heads/master").await.unwrap(), Lookup::Missing);
    world.fetch().await.unwrap();
    assert_eq!(world.mirror.find(&sha, "refs/heads/master").await.unwrap(), Lookup::Found(sha.clone()));
    let (message, author) = world.mirror.commit_message(&sha).await.unwrap();
    assert_eq!((message.as_str(), author.name.as_str()), ("a change\n\nwith a body", "Ada Lovelace"));
    assert_eq!(world.mirror.read_file(&sha, "a.txt", 100).await.unwrap().bytes, b"one\n");
    assert_eq!(world.mirror.read_file(&sha, "a.txt", 3).await.unwrap_err(), SourceError::TooLarge { limit: 3 });
    let tree = world.mirror.tree(&sha).await.unwrap();
    let listed = tree.matching("**", None, 10, || true).unwrap();
    assert_eq!(listed.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["a.txt", "sub/b.sh"]);
    assert_eq!(tree.matching("*", Some("a.txt"), 10, || true).unwrap(), []);
    assert!(matches!(tree.matching("[", None, 10, || true).unwrap_err(), SourceError::Glob(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_commit_survives_a_force_push_and_a_missing_one_is_reported_with_its_successor() {
    let world = world().await;
    let base = world.push("master", &[("a", "1")]).await;
    let first = world.push("topic", &[("a", "2")]).await;
    world.fetch().await.unwrap();
    world.mirror.find(&first, "refs/heads/topic").await.unwrap();
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("topic").await.unwrap();
    let unseen = Sha::new(&copy.commit(&[], "never fetched").await.unwrap()).unwrap();
    copy.push(&["+HEAD:refs/heads/topic"]).await.unwrap();
    copy.git(&["reset", "--quiet", "--hard", base.as_str()]).await.unwrap();
    let newer = Sha::new(&copy.commit(&[], "the branch goes another way").await.unwrap()).unwrap();
    copy.push(&["+HEAD:refs/heads/topic"]).await.unwrap();
    world.fetch().await.unwrap();
    assert_eq!(world.mirror.find(&first, "refs/heads/topic").await.unwrap(), Lookup::Found(first.clone()));
    assert_eq!(world.mirror.find(&unseen, "refs/heads/topic").await.unwrap(), Lookup::MovedOn { newer });
    copy.push(&[":refs/heads/topic"]).await.unwrap();
    world.fetch().await.unwrap();
    assert_eq!(world.mirror.find(&unseen, "refs/heads/topic").await.unwrap(), Lookup::Missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_branch_names_are_never_interpreted() {
    let world = world().await;
    let base = world.push("master", &[("a", "1")]).await;
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("master").await.unwrap();
    // No component of a ref may begin with a dot, as names of temporary directories do.
    let proof = std::env::temp_dir().join(format!("beespace-proof-{}", std::process::id()));
    let lookalike = base.to_string();
    let shell = format!("--upload-pack=touch${{IFS}}{}", proof.display());
    for name in [shell.as_str(), "--exec=id", "$(id)", "a'b\"c;d&e|f", lookalike.as_str(), "ünïcode-分支"] {
        let sha = Sha::new(&copy.commit(&[("a", name)], &format!("for {name}")).await.unwrap()).unwrap();
        copy.push(&[&format!("HEAD:refs/heads/{name}")]).await.unwrap();
        world.fetch().await.unwrap();
        let git_ref = format!("refs/heads/{name}");
        assert_eq!(world.mirror.tip(&git_ref).await.unwrap().as_ref(), Some(&sha), "{name}");
        assert_eq!(world.mirror.find(&sha, &git_ref).await.unwrap(), Lookup::Found(sha.clone()));
        let push = PushRange { before: None, last_known_tip: None, after: &sha, branch: name, default_branch: "master" };
        assert_eq!(world.mirror.base(push).await.unwrap(), Base::Commit(base.clone()));
        assert_eq!(world.mirror.changed_paths(&base, &sha).await.unwrap(), ChangedPaths::Known(vec!["a".to_owned()]));
        let url = world.url();
        let request = CheckoutRequest { branch: Some(name), depth: None, ..request(&sha, &url) };
        let checkout = world.mirror.checkout(request, &world.scratch()).await.unwrap();
        assert_eq!(std::fs::read_to_string(checkout.path().join("a")).unwrap(), name);
        let head = copy.git(&["-C", checkout.path().to_str().unwrap(), "rev-parse", "HEAD"]).await.unwrap();
        assert_eq!(head, sha.as_str());
    }
    assert!(!proof.exists(), "a name was run");
    // If a branch has the name of a commit, the commit is used.
    assert_eq!(world.mirror.commit_message(&base).await.unwrap().0, "a change\n\nwith a body");
    for git_ref in ["master", "--help", "refs/heads/a b", "refs/heads/a\nb", "refs/heads/../x"] {
        assert_eq!(world.mirror.tip(git_ref).await.unwrap(), None, "{git_ref:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn symlinks_directories_and_submodules_are_not_read_as_files() {
    let world = world().await;
    world.push("master", &[("dir/file", "x")]).await;
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("master").await.unwrap();
    std::os::unix::fs::symlink("/etc/passwd", copy.path().join(".beespace.yml")).unwrap();
    std::os::unix::fs::symlink("dir", copy.path().join("link")).unwrap();
    let odd = ["with space", "new\nline", "quo\"te", "-dash", ":(glob)**", "日本語"];
    copy.write(&odd.map(|name| (name, "odd"))).unwrap();
    let module = "160000,1111111111111111111111111111111111111111,module";
    copy.git(&["add", "--all"]).await.unwrap();
    copy.git(&["update-index", "--add", "--cacheinfo", module]).await.unwrap();
    copy.git(&["commit", "--quiet", "--message", "odd"]).await.unwrap();
    copy.push(&["HEAD:refs/heads/master"]).await.unwrap();
    world.fetch().await.unwrap();
    let sha = Sha::new(&copy.git(&["rev-parse", "HEAD"]).await.unwrap()).unwrap();
    for (path, kind) in [(".beespace.yml", "symbolic link"), ("dir", "directory"), ("module", "submodule")] {
        assert_eq!(world.mirror.read_file(&sha, path, 1000).await.unwrap_err(), SourceError::NotAFile { kind }, "{path}");
    }
    for path in ["", "/etc/passwd", "../x", "dir/../dir/file", "dir/", "link/file", "missing", "*", "dir//file", "a\0b"] {
        assert_eq!(world.mirror.read_file(&sha, path, 1000).await.unwrap_err(), SourceError::NotFound, "{path:?}");
    }
    for path in odd {
        assert_eq!(world.mirror.read_file(&sha, path, 1000).await.unwrap().bytes, b"odd", "{path:?}");
    }
    let all = world.mirror.tree(&sha).await.unwrap().matching("**", None, 100, || true).unwrap();
    let kind = |path: &str| all.iter().find(|entry| entry.path == path).map(|entry| entry.kind);
    assert_eq!(kind("link"), Some(EntryKind::Symlink));
    assert_eq!(kind("module"), Some(EntryKind::Submodule));
    assert_eq!(kind("new\nline"), Some(EntryKind::File));
    let checkout = world.mirror.checkout(request(&sha, &world.url()), &world.scratch()).await.unwrap();
    assert!(std::fs::symlink_metadata(checkout.path().join("link")).unwrap().is_symlink());
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_paths_come_from_git() {
    let world = world().await;
    let first = world.push("master", &[("a", "1"), ("b", "1"), ("with space", "1")]).await;
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("master").await.unwrap();
    copy.git(&["mv", "a", "renamed"]).await.unwrap();
    copy.write(&[("with space", "2"), ("new\nline", "1")]).unwrap();
    let second = Sha::new(&copy.commit(&[], "changes").await.unwrap()).unwrap();
    copy.push(&["HEAD:refs/heads/master", "HEAD:refs/heads/same"]).await.unwrap();
    let topic = world.push("topic", &[("t", "1")]).await;
    copy.git(&["checkout", "--quiet", "--orphan", "alone"]).await.unwrap();
    let alone = Sha::new(&copy.commit(&[], "alone").await.unwrap()).unwrap();
    copy.push(&["HEAD:refs/heads/alone"]).await.unwrap();
    world.fetch().await.unwrap();
    let lost = Sha::new(&"1".repeat(40)).unwrap();
    let changed = async |before: Option<&Sha>, after: &Sha, branch: &str| match world
        .mirror
        .base(PushRange { before, last_known_tip: None, after, branch, default_branch: "master" })
        .await
        .unwrap()
    {
        Base::Commit(base) => world.mirror.changed_paths(&base, after).await.unwrap(),
        Base::Unknown(why) => ChangedPaths::Unknown(why),
    };
    let known = |paths: &[&str]| ChangedPaths::Known(paths.iter().map(|path| (*path).to_owned()).collect());
    assert_eq!(changed(Some(&first), &second, "master").await, known(&["a", "new\nline", "renamed", "with space"]));
    assert_eq!(changed(None, &topic, "topic").await, known(&["t"]));
    assert_eq!(changed(Some(&lost), &topic, "topic").await, known(&["t"]));
    assert_eq!(changed(None, &second, "same").await, known(&[]));
    for (before, after, branch, why) in [
        (None, &first, "master", "the branch is new, and it is the default branch"),
        (Some(&lost), &second, "master", "1111111 no longer exists, and it is the default branch"),
        (None, &alone, "alone", "the branch is new, and it has no commit in common with the default branch"),
    ] {
        assert_eq!(changed(before, after, branch).await, ChangedPaths::Unknown(why.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_changes_of_a_merge_are_relative_to_the_previous_branch_head() {
    let world = world().await;
    let shared = world.push("master", &[("a", "1")]).await;
    let topic = world.push("topic", &[("t", "1")]).await;
    let old_tip = world.push("master", &[("b", "1")]).await;
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("master").await.unwrap();
    copy.git(&["merge", "--quiet", "--no-ff", "-m", "Merge topic", topic.as_str()]).await.unwrap();
    let merge = Sha::new(&copy.commit(&[], "on top").await.unwrap()).unwrap();
    copy.push(&["HEAD:refs/heads/master"]).await.unwrap();
    world.fetch().await.unwrap();
    let base = async |before: &Sha, last_known_tip: Option<&Sha>| {
        let push = PushRange { before: Some(before), last_known_tip, after: &merge, branch: "master", default_branch: "master" };
        world.mirror.base(push).await.unwrap()
    };
    // As Gogs reports a merge that a person made on its page.
    assert_eq!(base(&shared, Some(&old_tip)).await, Base::Commit(old_tip.clone()));
    // An undelivered push lies between, so the sender's `before` is more accurate than ours.
    assert_eq!(base(&old_tip, Some(&shared)).await, Base::Commit(old_tip.clone()));
    assert_eq!(base(&shared, None).await, Base::Commit(shared.clone()));
    // A commit that was force-pushed away does not count.
    let elsewhere = Sha::new(&"1".repeat(40)).unwrap();
    assert_eq!(base(&shared, Some(&elsewhere)).await, Base::Commit(shared.clone()));
    assert_eq!(world.mirror.changed_paths(&old_tip, &merge).await.unwrap(), ChangedPaths::Known(vec!["t".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_a_push_come_from_git_even_after_a_force_push() {
    let world = world().await;
    let first = world.push("master", &[("a", "0")]).await;
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("master").await.unwrap();
    let mut shas = Vec::new();
    for number in 1..=60 {
        shas.push(Sha::new(&copy.commit(&[], &format!("commit {number}\n\nwith a\nbody")).await.unwrap()).unwrap());
    }
    copy.push(&["HEAD:refs/heads/master"]).await.unwrap();
    copy.git(&["reset", "--quiet", "--hard", first.as_str()]).await.unwrap();
    let other = Sha::new(&copy.commit(&[], "another way").await.unwrap()).unwrap();
    copy.push(&["--force", "HEAD:refs/heads/master", &format!("{}:refs/heads/kept", shas[59])]).await.unwrap();
    world.fetch().await.unwrap();
    let commits = async |base: Option<&Sha>, after: &Sha| {
        let (commits, count) = world.mirror.commits(base, after, 50).await.unwrap();
        (commits.iter().map(|commit| commit.message.clone()).collect::<Vec<_>>(), count)
    };
    let (messages, count) = commits(Some(&first), &shas[59]).await;
    assert_eq!((messages.len(), count), (50, 60));
    assert_eq!(messages[0], "commit 60\n\nwith a\nbody");
    assert_eq!(messages[49], "commit 11\n\nwith a\nbody");
    assert_eq!(commits(Some(&shas[59]), &other).await, (vec!["another way".to_owned()], 1));
    assert_eq!(commits(None, &shas[5]).await.1, 7);
    assert_eq!(commits(Some(&other), &first).await, (vec![], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_has_its_own_history_and_no_credentials() {
    let world = world().await;
    for text in ["1", "2", "3", "4"] {
        world.push("feature/x", &[("a", text)]).await;
    }
    world.fetch().await.unwrap();
    let sha = world.mirror.tip("refs/heads/feature/x").await.unwrap().unwrap();
    let url = world.url();
    let request = CheckoutRequest { branch: Some("feature/x"), depth: NonZeroU32::new(2), ..request(&sha, &url) };
    let checkout = world.mirror.checkout(request, &world.scratch()).await.unwrap();
    let git = async |arguments: &[&str]| {
        let output = git_in(checkout.path(), arguments).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(git(&["rev-parse", "HEAD"]).await, sha.to_string());
    assert_eq!(git(&["rev-parse", "--abbrev-ref", "HEAD"]).await, "feature/x");
    assert_eq!(git(&["rev-list", "--count", "HEAD"]).await, "2");
    assert_eq!(git(&["status", "--porcelain"]).await, "");
    assert_eq!(git(&["remote", "get-url", "origin"]).await, world.url().to_string());
    assert!(!std::fs::read_to_string(checkout.path().join(".git/config")).unwrap().contains(world.gogs.token()));
    assert!(hard_links(checkout.path()).is_empty(), "{:?}", hard_links(checkout.path()));
    let path = checkout.path().to_owned();
    drop(checkout);
    while path.exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkout_of_a_tag_is_detached_and_has_the_tag() {
    let world = world().await;
    let sha = world.push("master", &[("a", "1")]).await;
    world.gogs.tag("acme/app", "master", "v1", Some("The first")).await.unwrap();
    world.push("master", &[("a", "2")]).await;
    world.fetch().await.unwrap();
    let url = world.url();
    for depth in [NonZeroU32::new(1), None] {
        let request = CheckoutRequest { branch: None, tag: Some("v1"), depth, ..request(&sha, &url) };
        let checkout = world.mirror.checkout(request, &world.scratch()).await.unwrap();
        for (arguments, expected) in [
            (vec!["rev-parse", "HEAD"], sha.as_str()),
            (vec!["rev-parse", "--abbrev-ref", "HEAD"], "HEAD"),
            (vec!["describe"], "v1"),
            (vec!["status", "--porcelain"], ""),
        ] {
            let output = git_in(checkout.path(), &arguments).await;
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{arguments:?}: {output:?}");
        }
    }
}

/// A checkout of one commit of the default branch.
fn request<'a>(sha: &'a Sha, origin: &'a Url) -> CheckoutRequest<'a> {
    CheckoutRequest {
        sha,
        branch: Some("master"),
        tag: None,
        default_branch: "master",
        before: None,
        depth: NonZeroU32::new(1),
        origin,
    }
}

/// Git as a program of a step would run it, without the machine's configuration.
async fn git_in(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let mut git = tokio::process::Command::new("git");
    git.current_dir(folder).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").stdin(Stdio::null());
    git.args(arguments).output().await.unwrap()
}

async fn git_text(folder: &Path, arguments: &[&str]) -> String {
    let output = git_in(folder, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A commit with a million files, or a million empty directories, in a few kilobytes: each tree has ten entries for one smaller
/// tree.
async fn push_tree_bomb(world: &World, is_empty: bool) -> (Sha, Sha) {
    let base = world.push("master", &[("file", "text")]).await;
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("master").await.unwrap();
    let (mut mode, mut object) = if is_empty {
        ("40000", copy.git(&["hash-object", "-t", "tree", "-w", "/dev/null"]).await.unwrap())
    } else {
        ("100644", copy.git(&["rev-parse", "HEAD:file"]).await.unwrap())
    };
    for _ in 0..6 {
        let entry = |number: u8| [format!("{mode} {number}\0").into_bytes(), hex::decode(&object).unwrap()].concat();
        std::fs::write(copy.path().join("tree"), (0..10).map(entry).collect::<Vec<_>>().concat()).unwrap();
        object = copy.git(&["hash-object", "-t", "tree", "-w", "tree"]).await.unwrap();
        mode = "40000";
    }
    let bomb = copy.git(&["commit-tree", "-p", "HEAD", "-m", "bomb", &object]).await.unwrap();
    copy.push(&[&format!("{bomb}:refs/heads/bomb")]).await.unwrap();
    (base, Sha::new(&bomb).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_with_too_many_files_is_refused_before_git_lists_it() {
    for is_empty in [false, true] {
        too_many_files_are_refused(&world().await, is_empty).await;
    }
}

async fn too_many_files_are_refused(world: &World, is_empty: bool) {
    let (base, bomb) = push_tree_bomb(world, is_empty).await;
    world.fetch().await.unwrap();
    assert_eq!(world.mirror.find(&bomb, "refs/heads/bomb").await.unwrap(), Lookup::Found(bomb.clone()));
    let mirror = world.limited(SourceLimits { checkout_files: 50_000, ..SourceLimits::default() });
    let text = format!("{} has more files and directories than `[limits] checkout_files` (50000)", bomb.short());
    let refused = SourceError::OverLimit(text.clone());
    assert_eq!(mirror.checkout(request(&bomb, &world.url()), &world.scratch()).await.unwrap_err(), refused);
    assert!(refused.is_refusal() && !refused.is_retryable());
    assert_eq!(mirror.changed_paths(&base, &bomb).await.unwrap(), ChangedPaths::Unknown(text.clone()));
    assert_eq!(mirror.changed_paths(&bomb, &base).await.unwrap(), ChangedPaths::Unknown(text));
    assert!(!world.scratch().directory.exists(), "nothing was written");
    assert!(mirror.checkout(request(&base, &world.url()), &world.scratch()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_large_file_under_many_names_is_refused_by_its_size_and_by_the_disk() {
    let world = world().await;
    let text = "a".repeat(1 << 20);
    let sha = world.push("master", &[("one", &text), ("two", &text), ("three", &text)]).await;
    world.fetch().await.unwrap();
    let mirror = world.limited(SourceLimits { checkout_bytes: 3 << 20, ..SourceLimits::default() });
    let checkout = mirror.checkout(request(&sha, &world.url()), &world.scratch()).await.unwrap();
    assert_eq!(std::fs::metadata(checkout.path().join("three")).unwrap().len(), 1 << 20);
    let mirror = world.limited(SourceLimits { checkout_bytes: (3 << 20) - 1, ..SourceLimits::default() });
    let refused = mirror.checkout(request(&sha, &world.url()), &world.scratch()).await.unwrap_err();
    let text = format!("the files of {} have 3 MiB, and `[limits] checkout_bytes` is 3145727B", sha.short());
    assert_eq!(refused, SourceError::OverLimit(text));
    // No disk has that much beside the checkout.
    let scratch = Scratch { reserve: u64::MAX / 2, ..world.scratch() };
    let no_room = world.mirror.checkout(request(&sha, &world.url()), &scratch).await.unwrap_err();
    assert!(matches!(&no_room, SourceError::NoRoom(text) if text.contains("the files need 3 MiB")), "{no_room:?}");
    assert!(no_room.is_retryable());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_larger_than_the_memory_of_git_is_built() {
    let world = world().await;
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.git(&["symbolic-ref", "HEAD", "refs/heads/master"]).await.unwrap();
    let mut random = vec![0; 40 << 20];
    getrandom::fill(&mut random).unwrap();
    std::fs::write(copy.path().join("large"), &random).unwrap();
    for (number, part) in random.chunks(8 << 20).enumerate() {
        std::fs::write(copy.path().join(format!("part-{number}")), part).unwrap();
    }
    let sha = Sha::new(&copy.commit(&[], "a lot").await.unwrap()).unwrap();
    copy.push(&["HEAD:refs/heads/master"]).await.unwrap();
    let mirror = world.limited(SourceLimits { git_memory: 64 << 20, ..SourceLimits::default() });
    mirror.fetch(at(&world.url()), &ForgeCredentials::token(world.gogs.token().to_owned().into())).await.unwrap();
    assert_eq!(mirror.find(&sha, "refs/heads/master").await.unwrap(), Lookup::Found(sha.clone()));
    let checkout = mirror.checkout(request(&sha, &world.url()), &world.scratch()).await.unwrap();
    assert!(std::fs::read(checkout.path().join("large")).unwrap() == random);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_of_a_copied_checkout_agrees_with_its_files() {
    let world = world().await;
    let sha = world.push("master", &[("a", "1"), ("sub/b", "2")]).await;
    world.fetch().await.unwrap();
    let checkout = world.mirror.checkout(request(&sha, &world.url()), &world.scratch()).await.unwrap();
    // Other inodes and times of status changes, and modes that are open to everybody, as in the workspace of a stage.
    let copy = world.folder.path().join("workspace");
    let copied =
        tokio::process::Command::new("cp").args(["-R", "--preserve=timestamps"]).arg(checkout.path()).arg(&copy).status();
    assert!(copied.await.unwrap().success());
    let opened = tokio::process::Command::new("chmod").args(["-R", "a+rwX"]).arg(&copy).status();
    assert!(opened.await.unwrap().success());
    for plumbing in [&["diff-index", "--quiet", "HEAD", "--"][..], &["diff-files", "--quiet"]] {
        assert!(git_in(&copy, plumbing).await.status.success(), "{plumbing:?}");
    }
    std::fs::write(copy.join("a"), "other").unwrap();
    assert_eq!(git_in(&copy, &["diff-index", "--quiet", "HEAD", "--"]).await.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_history_has_tags_and_every_history_has_the_default_branch_and_the_commit_before() {
    let world = world().await;
    for text in ["1", "2", "3"] {
        world.push("main", &[("a", text)]).await;
    }
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("topic").await.unwrap();
    copy.git(&["tag", "light"]).await.unwrap();
    copy.git(&["tag", "-m", "annotated", "v1.0"]).await.unwrap();
    let before = Sha::new(&copy.commit(&[("t", "1")], "rewritten").await.unwrap()).unwrap();
    copy.push(&["HEAD:refs/heads/topic", "refs/tags/*:refs/tags/*"]).await.unwrap();
    world.fetch().await.unwrap();
    let head = Head {
        sha: before.clone(),
        message: String::new(),
        author: Claim { name: String::new(), email: String::new() },
        base: Base::Unknown("not needed".to_owned()),
    };
    world.mirror.pin(BuildId(uuid::Uuid::now_v7()), &head).await.unwrap();
    copy.git(&["reset", "--quiet", "--hard", "v1.0"]).await.unwrap();
    let sha = Sha::new(&copy.commit(&[("t", "2")], "anew").await.unwrap()).unwrap();
    copy.push(&["+HEAD:refs/heads/topic"]).await.unwrap();
    world.fetch().await.unwrap();
    let url = world.url();
    let deep = CheckoutRequest {
        branch: Some("topic"),
        default_branch: "main",
        before: Some(&before),
        depth: None,
        ..request(&sha, &url)
    };
    let shallow = CheckoutRequest { depth: NonZeroU32::new(1), ..deep };
    for request in [deep, shallow] {
        let checkout = world.mirror.checkout(request, &world.scratch()).await.unwrap();
        for revision in ["origin/main", "origin/HEAD", before.as_str()] {
            assert_eq!(git_text(checkout.path(), &["diff", "--name-only", revision, "HEAD"]).await, "t", "{revision}");
        }
        assert_eq!(git_text(checkout.path(), &["symbolic-ref", "refs/remotes/origin/HEAD"]).await, "refs/remotes/origin/main");
        let tags = git_text(checkout.path(), &["tag"]).await;
        assert_eq!(tags, if request.depth.is_none() { "light\nv1.0" } else { "" });
    }
    let checkout = world.mirror.checkout(deep, &world.scratch()).await.unwrap();
    assert_eq!(git_text(checkout.path(), &["describe", "--tags", "--exact-match", "HEAD~1"]).await, "v1.0");
    assert_eq!(git_text(checkout.path(), &["diff", "--name-only", "origin/main...HEAD"]).await, "t");
    // Without the commit before, and without a default branch, the rest is there.
    let alone = CheckoutRequest { default_branch: "gone", before: None, ..shallow };
    let checkout = world.mirror.checkout(alone, &world.scratch()).await.unwrap();
    assert_eq!(git_text(checkout.path(), &["branch", "--remotes"]).await, "origin/topic");
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_and_lfs_objects_are_named_as_left_out() {
    let world = world().await;
    let plain = world.push("master", &[("a", "1"), (".gitattributes", "*.txt text\n")]).await;
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("master").await.unwrap();
    copy.write(&[("sub/.gitattributes", "*.bin filter=lfs diff=lfs -text\n")]).unwrap();
    copy.git(&["add", "--all"]).await.unwrap();
    for number in 1..=7 {
        let module = format!("160000,1111111111111111111111111111111111111111,lib-{number}");
        copy.git(&["update-index", "--add", "--cacheinfo", &module]).await.unwrap();
    }
    copy.git(&["commit", "--quiet", "--message", "more"]).await.unwrap();
    copy.push(&["HEAD:refs/heads/master"]).await.unwrap();
    let sha = Sha::new(&copy.git(&["rev-parse", "HEAD"]).await.unwrap()).unwrap();
    world.fetch().await.unwrap();
    assert_eq!(world.mirror.left_out(&plain).await.unwrap().lines(), Vec::<String>::new());
    let expected = [
        "Submodules are not fetched, so their directories are empty: `lib-1`, `lib-2`, `lib-3`, `lib-4`, `lib-5`, 2 more.",
        "Git LFS objects are not fetched: files with `filter=lfs` in `.gitattributes` contain pointers.",
    ];
    assert_eq!(world.mirror.left_out(&sha).await.unwrap().lines(), expected);
}

fn hard_links(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(hard_links(&path));
        } else if metadata.nlink() > 1 {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn forge_errors_are_distinguished_and_hide_the_token() {
    let world = world().await;
    world.push("master", &[("a", "1")]).await;
    let token = world.gogs.token();
    world.gogs.set_offline(true);
    let away = world.fetch().await.unwrap_err();
    assert!(matches!(away, SourceError::ForgeUnreachable(_)), "{away:?}");
    world.gogs.set_offline(false);
    world.gogs.set_token_revoked(true);
    let dead = world.fetch().await.unwrap_err();
    assert!(matches!(dead, SourceError::TokenRejected(_)), "{dead:?}");
    world.gogs.set_token_revoked(false);
    let access = ForgeCredentials::token(token.to_owned().into());
    let missing: Url = format!("{}/acme/none.git", world.gogs.url()).parse().unwrap();
    let gone = world.mirror.fetch(at(&missing), &access).await.unwrap_err();
    assert!(matches!(gone, SourceError::RepositoryGone(_)), "{gone:?}");
    let closed_port: Url = "http://127.0.0.1:1/acme/app.git".parse().unwrap();
    let refused = world.mirror.fetch(at(&closed_port), &access).await.unwrap_err();
    assert!(matches!(refused, SourceError::ForgeUnreachable(_)), "{refused:?}");
    for error in [away, dead, gone, refused] {
        assert!(error.is_retryable());
        assert!(error.reason().help.is_some());
        assert!(!format!("{error:?}{}{access:?}", error.reason()).contains(token));
    }
    for url in ["file:///etc", "ssh://127.0.0.1/x", "ext::sh -c id"] {
        let Ok(url) = url.parse::<Url>() else { continue };
        assert!(world.mirror.fetch(at(&url), &access).await.is_err(), "{url}");
    }
    world.fetch().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_with_missing_objects_after_a_failed_fetch_does_not_count_as_present() {
    let world = world().await;
    world.push("master", &[("a", "1")]).await;
    world.fetch().await.unwrap();
    let whole = world.push("master", &[("b", "2")]).await;
    let copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.git(&["fetch", "--quiet", "origin"]).await.unwrap();
    let commit = copy.git(&["cat-file", "commit", whole.as_str()]).await.unwrap();
    std::fs::write(copy.path().join("commit"), format!("{commit}\n")).unwrap();
    // The state after a full disk interrupted unpacking: the commit without its tree and files.
    let mirror = std::fs::read_dir(world.folder.path().join("mirrors")).unwrap().next().unwrap().unwrap().path();
    let git_dir = format!("--git-dir={}", mirror.display());
    let left = copy.git(&[&git_dir, "hash-object", "-t", "commit", "-w", "commit"]).await.unwrap();
    assert_eq!(left, whole.as_str());
    assert!(matches!(world.mirror.find(&whole, "refs/heads/master").await.unwrap(), Lookup::MovedOn { .. }));
    world.fetch().await.unwrap();
    assert_eq!(world.mirror.find(&whole, "refs/heads/master").await.unwrap(), Lookup::Found(whole.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_concurrent_fetches_share_one_mirror() {
    let world = world().await;
    let sha = world.push("master", &[("a", "1")]).await;
    let same = mirrors(&world.folder);
    let fetches = (0..6).map(|_| {
        let (mirror, url, token) = (same.of(RepositoryId(world.repo.id)), world.url(), world.gogs.token().to_owned());
        tokio::spawn(async move { mirror.fetch(at(&url), &ForgeCredentials::token(token.into())).await })
    });
    for fetch in fetches.collect::<Vec<_>>() {
        fetch.await.unwrap().unwrap();
    }
    assert_eq!(world.mirror.find(&sha, "refs/heads/master").await.unwrap(), Lookup::Found(sha.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_replaced_by_a_directory_of_branches_is_fetched() {
    let world = world().await;
    // The first branch becomes the default branch, which cannot be deleted.
    world.push("master", &[("a", "1")]).await;
    world.push("a", &[("a", "1")]).await;
    world.fetch().await.unwrap();
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("a").await.unwrap();
    copy.push(&[":refs/heads/a"]).await.unwrap();
    copy.push(&["HEAD:refs/heads/a/b"]).await.unwrap();
    world.fetch().await.unwrap();
    assert_eq!(world.mirror.tip("refs/heads/a").await.unwrap(), None);
    assert!(world.mirror.tip("refs/heads/a/b").await.unwrap().is_some());
}

/// The folder of the world's mirror.
fn mirror_path(world: &World) -> PathBuf {
    world.folder.path().join(format!("mirrors/{}.git", world.repo.id))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_of_a_killed_git_do_not_outlast_it() {
    let world = world().await;
    world.push("master", &[("a", "1")]).await;
    world.fetch().await.unwrap();
    let path = mirror_path(&world);
    let locks = [
        "refs/heads/master.lock",
        "refs/tags/v1.lock",
        "packed-refs.lock",
        "HEAD.lock",
        "config.lock",
        "objects/maintenance.lock",
    ];
    let put = || locks.iter().for_each(|lock| std::fs::write(path.join(lock), "").unwrap());
    let left = || locks.iter().filter(|lock| path.join(lock).exists()).count();

    // The next process finds what a kill of this one left.
    put();
    let newer = world.push("master", &[("a", "2")]).await;
    let next = mirrors(&world.folder).of(RepositoryId(world.repo.id));
    let access = ForgeCredentials::token(world.gogs.token().to_owned().into());
    next.fetch(at(&world.url()), &access).await.unwrap();
    assert_eq!((next.tip("refs/heads/master").await.unwrap(), left()), (Some(newer), 0));

    // A fetch that fails because of a lock is reported, and the next one succeeds.
    put();
    let newest = world.push("master", &[("a", "3")]).await;
    next.fetch(at(&world.url()), &access).await.unwrap_err();
    assert!(next.last_fetch_failure().is_some_and(|error| error.to_string().contains("lock")));
    next.fetch(at(&world.url()), &access).await.unwrap();
    assert_eq!((next.tip("refs/heads/master").await.unwrap(), left()), (Some(newest), 0));
    assert_eq!(next.last_fetch_failure(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_branch_is_not_compared_with_branches_that_could_not_be_fetched() {
    let world = world().await;
    world.push("master", &[("a", "1")]).await;
    let topic = world.push("topic", &[("b", "1")]).await;
    world.fetch().await.unwrap();
    let push = PushRange { before: None, last_known_tip: None, after: &topic, branch: "topic", default_branch: "master" };
    assert!(matches!(world.mirror.base(push).await.unwrap(), Base::Commit(_)));
    world.gogs.set_offline(true);
    world.fetch().await.unwrap_err();
    let Base::Unknown(why) = world.mirror.base(push).await.unwrap() else { panic!("the default branch may have moved") };
    assert!(why.contains("the default branch could not be fetched: Gogs cannot be reached"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_whose_begin_is_slow_succeeds_with_a_longer_limit() {
    let world = world().await;
    let sha = world.push("master", &[("a", "1")]).await;
    let limits = FetchLimits { silence: Duration::from_secs(1), total: Duration::from_secs(3_600) };
    let mirror = mirrors(&world.folder).with_fetch_limits(limits).of(RepositoryId(world.repo.id));
    let access = ForgeCredentials::token(world.gogs.token().to_owned().into());
    // Longer than the first limit, shorter than a later one.
    world.gogs.set_delay(Duration::from_millis(2_500));
    let first = mirror.fetch(at(&world.url()), &access).await.unwrap_err();
    assert_eq!(first, SourceError::Silent { after: Duration::from_secs(1) });
    assert!(first.to_string().contains("sent nothing for 1 s") && first.is_retryable(), "{first}");
    while let Err(error) = mirror.fetch(at(&world.url()), &access).await {
        assert!(matches!(error, SourceError::Silent { after } if after > limits.silence), "{error:?}");
    }
    assert_eq!(mirror.find(&sha, "refs/heads/master").await.unwrap(), Lookup::Found(sha.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fetch_serves_all_that_waited_when_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let mirror = mirrors(&folder).of(RepositoryId(1));
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}/acme/app.git", server.local_addr().unwrap()).parse().unwrap();
    let access = ForgeCredentials::token("token".to_owned().into());
    let fetch = || Box::pin(mirror.fetch(at(&url), &access));
    // Every request is refused, but only when the test says so.
    let refuse = async |mut request: TcpStream| request.write_all(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    let mut first = fetch();
    let (request, _) = tokio::select! {
        accepted = server.accept() => accepted.unwrap(),
        ended = &mut first => panic!("{ended:?}"),
    };
    let mut waiting = [fetch(), fetch(), fetch()];
    for fetch in &mut waiting {
        assert!(futures::poll!(fetch).is_pending());
    }
    refuse(request).await.unwrap();
    first.await.unwrap_err();
    let [second, third, fourth] = waiting;
    let serve = async {
        let (request, _) = server.accept().await.unwrap();
        refuse(request).await.unwrap();
    };
    let (second, third, fourth, ()) = tokio::join!(second, third, fourth, serve);
    assert!(matches!(&second, Err(SourceError::ForgeUnreachable(_))), "{second:?}");
    assert!(second == third && third == fourth, "{second:?} {third:?} {fourth:?}");
    assert!(futures::poll!(Box::pin(server.accept())).is_pending(), "no more requests were made");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_stay_until_their_last_build_is_removed() {
    let world = world().await;
    world.push("master", &[("a", "1")]).await;
    let lost = world.push("topic", &[("a", "2")]).await;
    world.fetch().await.unwrap();
    let (one, other) = (BuildId(uuid::Uuid::now_v7()), BuildId(uuid::Uuid::now_v7()));
    let author = Claim { name: String::new(), email: String::new() };
    let head = Head { sha: lost.clone(), message: String::new(), author, base: Base::Unknown(String::new()) };
    // The lock of a git that was killed does not keep the build from its pin.
    let lock = mirror_path(&world).join(format!("refs/beespace/builds/{one}/head.lock"));
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    std::fs::write(&lock, "").unwrap();
    for build in [one, other] {
        world.mirror.pin(build, &head).await.unwrap();
    }
    world.gogs.delete_branch("acme/app", "topic").await.unwrap();
    world.fetch().await.unwrap();

    let later = now() + Duration::from_secs(3 * 24 * 3_600);
    let is_there = async || {
        make_old(&mirror_path(&world).join("objects"));
        let collection = world.mirror.collect_garbage(later).await.unwrap();
        (collection, matches!(world.mirror.find(&lost, "refs/heads/topic").await.unwrap(), Lookup::Found(_)))
    };
    assert_eq!(is_there().await, (Collection::Automatic, true));
    world.mirror.unpin(&[one]).await.unwrap();
    assert_eq!(world.mirror.collect_garbage(now()).await.unwrap(), Collection::Automatic, "not every pass repacks the mirror");
    assert_eq!(is_there().await, (Collection::Repacked, true), "the other build needs the commit");
    world.mirror.unpin(&[one, other]).await.unwrap();
    assert_eq!(is_there().await, (Collection::Repacked, false));
    assert_eq!(is_there().await, (Collection::Automatic, false));
}

/// Makes all files of a folder a month old.
fn make_old(folder: &Path) {
    let month_ago = SystemTime::now() - Duration::from_secs(30 * 24 * 3_600);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            make_old(&path);
        } else {
            // git makes its object files read-only; root and the owner may still change their times.
            let file = std::fs::File::open(&path).unwrap();
            file.set_modified(month_ago).unwrap();
        }
    }
}

/// A branch reaches a commit, a tag reaches it, or neither does; the ref of a pull request and the pin of a build do not count.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_counts_as_part_of_the_repository_if_a_branch_or_tag_reaches_it() {
    let world = world().await;
    world.push("master", &[("a", "1")]).await;
    let older = world.push("topic", &[("a", "2")]).await;
    let sha = world.push("topic", &[("a", "3")]).await;
    world.fetch().await.unwrap();
    let author = Claim { name: String::new(), email: String::new() };
    let head = Head { sha: sha.clone(), message: String::new(), author, base: Base::Unknown(String::new()) };
    world.mirror.pin(BuildId(uuid::Uuid::now_v7()), &head).await.unwrap();
    let look = async || {
        world.fetch().await.unwrap();
        let (older, sha) = (world.mirror.location(&older).await.unwrap(), world.mirror.location(&sha).await.unwrap());
        assert_eq!(older, sha);
        sha
    };
    assert_eq!(look().await, CommitLocation::BranchOrTag);
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("topic").await.unwrap();
    copy.push(&["HEAD:refs/pull/1/head", ":refs/heads/topic"]).await.unwrap();
    assert_eq!(look().await, CommitLocation::Elsewhere);
    copy.git(&["tag", "--message", "annotated", "v1"]).await.unwrap();
    copy.push(&["refs/tags/v1"]).await.unwrap();
    assert_eq!(look().await, CommitLocation::BranchOrTag);
}

/// Strangers choose what the head of a pull request brings, so no other fetch contains it, and its ref does not stay.
#[tokio::test(flavor = "multi_thread")]
async fn the_head_of_a_pull_request_is_fetched_alone_and_its_ref_is_removed() {
    let world = world().await;
    world.push("master", &[("a", "1")]).await;
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("master").await.unwrap();
    let head = Sha::new(&copy.commit(&[("b", "2")], "proposed").await.unwrap()).unwrap();
    copy.push(&["HEAD:refs/pull/7/head"]).await.unwrap();
    let find = async || world.mirror.find(&head, "refs/pull/7/head").await.unwrap();
    world.fetch().await.unwrap();
    assert_eq!(find().await, Lookup::Missing);
    let access = ForgeCredentials::token(world.gogs.token().to_owned().into());
    world.mirror.fetch_pull_request(&world.url(), &access, 8).await.unwrap();
    assert_eq!(find().await, Lookup::Missing, "another pull request, which Gogs does not have");
    world.mirror.fetch_pull_request(&world.url(), &access, 7).await.unwrap();
    assert_eq!(find().await, Lookup::Found(head.clone()));
    assert_eq!(world.mirror.location(&head).await.unwrap(), CommitLocation::Elsewhere);
    world.mirror.forget_pull_request(7).await.unwrap();
    assert_eq!(world.mirror.tip("refs/pull/7/head").await.unwrap(), None);
    world.fetch().await.unwrap();
}
