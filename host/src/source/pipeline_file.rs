//! The pipeline files of a commit, read from the mirror's objects.

use beespace_core::ids::Sha;
use beespace_core::pipeline::{self, FILE_NAMES, FOLDER, MAX_ALL_BYTES};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::commit::FetchedCommit;
use super::git::Call;
use super::objects::ListedEntry;
use super::{Mirror, SourceError};

/// The largest pipeline file, in bytes (rule 8 of the pipeline file).
const MAX_BYTES: u64 = 256 << 10;
/// Enough for the names in the root of a large repository, or in its folder of pipeline files.
const LIST_CAP: u64 = 1 << 20;
/// Files that are read at once; each is a process of git.
const READ_AT_ONCE: usize = 4;

/// The objects at the paths of the pipeline files in a commit.
#[derive(Debug)]
pub enum PipelineSource {
    /// Path and content of each file, sorted by path; at least one.
    Files(Vec<(String, Vec<u8>)>),
    Missing,
    /// Something else: a link, a directory, a file that is too large, or files that exclude each other.
    Unreadable(Reason),
}

/// Reads the pipeline files of a commit.
///
/// # Errors
/// The mirror cannot be read.
pub async fn read_pipeline_files(commit: &FetchedCommit) -> Result<PipelineSource, SourceError> {
    read_pipeline_files_at(commit, &commit.head.sha).await
}

/// Reads the pipeline files of another commit in the same mirror, `sha`.
///
/// # Errors
/// The mirror cannot be read.
pub async fn read_pipeline_files_at(commit: &FetchedCommit, sha: &Sha) -> Result<PipelineSource, SourceError> {
    let folder = format!("{FOLDER}/");
    let paths: Vec<&str> = FILE_NAMES.into_iter().chain([folder.as_str()]).collect();
    let mut listed = match commit.mirror.list_entries(sha, &paths, LIST_CAP).await {
        Ok(listed) => listed,
        Err(SourceError::TooLarge { .. }) => {
            return Ok(PipelineSource::Unreadable(Reason::new(
                ReasonCode::InvalidFile,
                format!("`{folder}` has too many files"),
            )));
        }
        Err(error) => return Err(error),
    };
    let selected: Vec<String> = match pipeline::select_files(listed.iter().map(|listed| listed.entry.path.as_str())) {
        Ok(selected) => selected.into_iter().map(str::to_owned).collect(),
        Err(reason) => return Ok(PipelineSource::Unreadable(reason)),
    };
    if selected.is_empty() {
        return Ok(PipelineSource::Missing);
    }
    listed.retain(|listed| selected.contains(&listed.entry.path));
    let all_bytes = listed.iter().map(|listed| listed.entry.size).fold(0, u64::saturating_add);
    if listed.len() > 1 && all_bytes > MAX_ALL_BYTES {
        let message = format!("the pipeline files are larger than {} KiB together", MAX_ALL_BYTES >> 10);
        let reason = Reason::new(ReasonCode::InvalidFile, message).help("move long scripts into files of the repository");
        return Ok(PipelineSource::Unreadable(reason));
    }
    let read = stream::iter(listed).map(|listed| read_pipeline_file(&commit.mirror, listed)).buffered(READ_AT_ONCE);
    match read.try_collect::<Vec<_>>().await {
        Ok(mut files) => {
            files.sort();
            Ok(PipelineSource::Files(files))
        }
        Err(Unreadable::File(reason)) => Ok(PipelineSource::Unreadable(reason)),
        Err(Unreadable::Mirror(error)) => Err(error),
    }
}

/// Why a file was not read.
enum Unreadable {
    /// Its author has to change it.
    File(Reason),
    Mirror(SourceError),
}

async fn read_pipeline_file(mirror: &Mirror, listed: ListedEntry) -> Result<(String, Vec<u8>), Unreadable> {
    let path = listed.entry.path.clone();
    match mirror.read_entry(listed, MAX_BYTES).await {
        Ok(read) => Ok((path, read.bytes)),
        Err(error @ (SourceError::NotAFile { .. } | SourceError::TooLarge { .. })) => {
            let mut reason = error.reason();
            reason.message = format!("{path}: {}", reason.message);
            Err(Unreadable::File(reason))
        }
        Err(error) => Err(Unreadable::Mirror(error)),
    }
}

/// The remedy for a commit without a pipeline file. It names a file of the commit that was probably meant as one.
pub async fn missing_file_help(commit: &FetchedCommit) -> String {
    let [name, _] = FILE_NAMES;
    // The list only improves the help, so an error is no reason to fail.
    let names = commit.mirror.root_names(commit).await.unwrap_or_default();
    let lookalike = names.iter().find(|other| is_lookalike(other));
    let of_other_system = names.iter().find(|other| OTHER_SYSTEMS.contains(&other.as_str()));
    match (lookalike, of_other_system) {
        (Some(other), _) if other == FOLDER => {
            format!("add a file such as `{FOLDER}/test.yml`, or a `{name}` in the root of the repository")
        }
        (Some(other), _) => format!("rename `{other}` to `{name}`"),
        (None, Some(other)) => {
            format!("`{other}` is not read: add a `{name}` in its own format to the root of the repository")
        }
        (None, None) => format!("add a `{name}` to the root of the repository"),
    }
}

/// Files and folders in which other CI systems look for their pipelines.
const OTHER_SYSTEMS: &[&str] = &[".drone.yml", ".woodpecker.yml", ".woodpecker", ".gitlab-ci.yml", ".travis.yml"];

/// Whether a name in the root was probably meant to be the pipeline file.
fn is_lookalike(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let stem = lower.strip_suffix(".yml").or_else(|| lower.strip_suffix(".yaml")).unwrap_or(&lower);
    let has_suffix = stem.len() < lower.len();
    // The folder has no suffix; a folder `beespace` may hold anything.
    matches!(stem.trim_start_matches('.'), "beespace" | "beespace-ci") && (has_suffix || name == ".beespace")
}

impl Mirror {
    /// The names in the root of a commit.
    async fn root_names(&self, commit: &FetchedCommit) -> Result<Vec<String>, SourceError> {
        let arguments = ["ls-tree", "-z", "--name-only", "--full-tree", "--end-of-options", commit.head.sha.as_str()];
        let listed = self.git.run_checked(&self.directory, Call::new(arguments).cap(LIST_CAP)).await?;
        Ok(listed.split(|byte| *byte == 0).map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_meant_as_the_pipeline_file_are_found() {
        for name in ["beespace.yml", "beespace.yaml", ".Beespace.yml", ".beespace.YAML", "..beespace.yml", ".beespace"] {
            assert!(is_lookalike(name), "{name}");
        }
        for name in ["beespace", ".beespace.json", ".drone.yml", "beespace.toml", "src", ""] {
            assert!(!is_lookalike(name), "{name}");
        }
    }
}
