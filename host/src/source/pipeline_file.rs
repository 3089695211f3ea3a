//! The pipeline file of a commit, read from the mirror's objects.

use beespace_core::pipeline::FILE_NAMES;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;

use super::commit::FetchedCommit;
use super::git::Call;
use super::{Mirror, SourceError};

/// The largest pipeline file, in bytes (rule 8 of the pipeline file).
const MAX_BYTES: u64 = 256 << 10;
/// Enough for the names in the root of a large repository.
const ROOT_CAP: u64 = 1 << 20;

/// The object at the path of the pipeline file in a commit.
#[derive(Debug)]
pub enum PipelineSource {
    File {
        path: String,
        bytes: Vec<u8>,
    },
    Missing,
    /// Something else: a link, a directory, a file that is too large, or two files.
    Unreadable(Reason),
}

/// Reads the pipeline file of a commit.
///
/// # Errors
/// The mirror cannot be read.
pub async fn read_pipeline_file(commit: &FetchedCommit) -> Result<PipelineSource, SourceError> {
    let mut listed = commit.mirror.find_entries(&commit.head.sha, &FILE_NAMES).await?;
    let Some(first) = listed.pop() else { return Ok(PipelineSource::Missing) };
    if !listed.is_empty() {
        let message = format!("the repository has both {}", FILE_NAMES.map(|name| format!("`{name}`")).join(" and "));
        let reason = Reason::new(ReasonCode::InvalidFile, message).help("remove one of them");
        return Ok(PipelineSource::Unreadable(reason));
    }
    let path = first.entry.path.clone();
    match commit.mirror.read_entry(first, MAX_BYTES).await {
        Ok(read) => Ok(PipelineSource::File { path, bytes: read.bytes }),
        Err(error @ (SourceError::NotAFile { .. } | SourceError::TooLarge { .. })) => {
            let mut reason = error.reason();
            reason.message = format!("{path}: {}", reason.message);
            Ok(PipelineSource::Unreadable(reason))
        }
        Err(error) => Err(error),
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
        (Some(other), _) if other == ".beespace" => {
            format!("files in `.beespace/` are not supported yet: move the pipeline to `{name}` in the root of the repository")
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
        let listed = self.git.run_checked(&self.directory, Call::new(arguments).cap(ROOT_CAP)).await?;
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
