//! The history of a checkout: the build's commit with its tag, the default branch's commit, the commit before, and all tags of a
//! full history.

use std::path::Path;

use beespace_core::event::tag_ref;
use beespace_core::git_ref::{self, BRANCHES};
use beespace_core::ids::Sha;
use url::Url;

use super::checkout::{CHECKOUT_TIMEOUT, CheckoutRequest};
use super::git::{Call, MEMORY_SETTINGS, Reach};
use super::{Lookup, Mirror, SourceError};

/// The remote-tracking branches of a checkout.
const REMOTE: &str = "refs/remotes/origin/";
/// The ref that keeps the build's commit if no branch does.
const HEAD: &str = "refs/beespace/head";
/// The ref that keeps the commit that the branch pointed to before.
const BEFORE: &str = "refs/beespace/before";

impl Mirror {
    /// Copies the history of a checkout into the empty repository `tree`. If the request has a branch, it then is the build's
    /// commit.
    pub(super) async fn copy_history(&self, request: CheckoutRequest<'_>, tree: &Path) -> Result<(), SourceError> {
        // Tags and the default branch's commit are not pinned.
        let _in_use = self.hold().await;
        let mirror = Url::from_file_path(&self.directory)
            .map_err(|()| SourceError::Internal("the data directory is not an absolute path".to_owned()))?;
        let mut arguments: Vec<String> =
            ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--update-head-ok"]
                .map(str::to_owned)
                .into();
        arguments.push(format!("--upload-pack={}", upload_pack()));
        arguments.extend(request.depth.map(|depth| format!("--depth={depth}")));
        arguments.extend(["--end-of-options".to_owned(), mirror.to_string()]);
        let (refs, default_branch) = self.refs(request).await?;
        arguments.extend(refs);
        // One pack instead of many small files, and no wait for the disk: after a crash the checkout is made anew.
        let call = Call::new(arguments).reach(Reach::Disk).setting("fetch.unpackLimit", "1").setting("core.fsync", "none");
        self.git.run_checked(tree, call.timeout(CHECKOUT_TIMEOUT)).await?;
        if request.depth.is_none() {
            // A repository may have many thousand tags, and each would be a file.
            self.git.run_checked(tree, Call::new(["pack-refs", "--all"]).timeout(CHECKOUT_TIMEOUT)).await?;
        }
        match default_branch {
            Some(name) => write_remote_head(tree, name).await,
            None => Ok(()),
        }
    }

    /// The refs to copy, as refspecs, and the default branch if it is among them.
    async fn refs<'a>(&self, request: CheckoutRequest<'a>) -> Result<(Vec<String>, Option<&'a str>), SourceError> {
        let (sha, branch) = (request.sha, request.branch);
        let mut refs = match branch {
            Some(branch) => vec![format!("+{sha}:{BRANCHES}{branch}"), format!("+{sha}:{REMOTE}{branch}")],
            None => vec![format!("+{sha}:{HEAD}")],
        };
        let mut default_branch = Some(request.default_branch).filter(|name| !is_head(name) && !branch.is_some_and(is_head));
        if let Some(name) = default_branch.filter(|name| branch != Some(*name)) {
            let is_free = !branch.is_some_and(|branch| is_inside(name, branch));
            let tip = self.tip(&format!("{BRANCHES}{name}")).await?.filter(|_| is_free);
            match tip {
                Some(tip) => refs.push(format!("+{tip}:{REMOTE}{name}")),
                None => default_branch = None,
            }
        }
        refs.extend(request.before.map(|before| format!("+{before}:{BEFORE}")));
        match request.tag {
            Some(tag) if request.depth.is_some() => refs.push(self.tag_refspec(tag, sha).await?),
            _ if request.depth.is_none() => refs.push("+refs/tags/*:refs/tags/*".to_owned()),
            _ => {}
        }
        Ok((refs, default_branch))
    }
}

impl Mirror {
    /// The refspec of the build's tag: the tag itself, annotated or not, as long as it names the build's commit.
    async fn tag_refspec(&self, name: &str, sha: &Sha) -> Result<String, SourceError> {
        let full = tag_ref(name);
        let is_current = matches!(self.find_tag(name, None).await?, Lookup::Found(commit) if commit == *sha);
        Ok(if is_current { format!("+{full}:{full}") } else { format!("+{sha}:{full}") })
    }
}

/// The program that serves the fetch. Git does not pass our settings on to it. It looks for no deltas, because the copy lives
/// only as long as its stage.
fn upload_pack() -> String {
    let settings = MEMORY_SETTINGS.iter().chain(&[("pack.window", "0")]);
    let settings: String = settings.map(|(key, value)| format!(" -c {key}={value}")).collect();
    format!("git{settings} upload-pack")
}

/// Makes `origin/HEAD` refer to the default branch, as `git clone` does. The name is that of a well-formed ref.
async fn write_remote_head(tree: &Path, default_branch: &str) -> Result<(), SourceError> {
    let folder = tree.join(".git").join(REMOTE);
    let written = async {
        tokio::fs::create_dir_all(&folder).await?;
        tokio::fs::write(folder.join("HEAD"), format!("ref: {REMOTE}{default_branch}\n")).await
    };
    written.await.map_err(|error| SourceError::internal(format!("cannot write origin/HEAD: {error}")))
}

/// Whether this branch would be the remote's symbolic `HEAD`.
fn is_head(branch: &str) -> bool {
    branch == "HEAD" || !git_ref::is_well_formed(&format!("{BRANCHES}{branch}"))
}

/// Whether one branch is named like a folder of the other. Both cannot exist at the same time, but one may have been deleted.
fn is_inside(one: &str, other: &str) -> bool {
    let inside = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('/'));
    inside(one, other) || inside(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_exist_together_are_known() {
        assert!(is_inside("a/b", "a") && is_inside("a", "a/b"));
        assert!(!is_inside("a", "a") && !is_inside("ab", "a") && !is_inside("a/b", "a/c"));
        assert!(is_head("HEAD") && is_head("a b") && !is_head("main"));
    }
}
