//! The pipeline file of a commit, read from the mirror's objects.

use beespace_core::reason::Reason;

use super::SourceError;
use super::commit::FetchedCommit;

/// The path of the pipeline file in the repository.
pub const PIPELINE_FILE: &str = ".beespace.yml";
/// The paths of several pipeline files, which are not read yet.
const PIPELINE_FOLDER: &str = ".beespace/*.yml";
/// The largest pipeline file, in bytes (rule 8 of the pipeline file).
const MAX_BYTES: u64 = 256 << 10;

/// The object at the path of the pipeline file in a commit.
#[derive(Debug)]
pub enum PipelineSource {
    File {
        path: String,
        bytes: Vec<u8>,
    },
    Missing,
    /// Something else: a link, a directory, or a file that is too large.
    Unreadable(Reason),
}

/// Reads the pipeline file of a commit.
///
/// # Errors
/// The mirror cannot be read.
pub async fn read_pipeline_file(commit: &FetchedCommit) -> Result<PipelineSource, SourceError> {
    match commit.mirror.read_file(&commit.head.sha, PIPELINE_FILE, MAX_BYTES).await {
        Ok(read) => Ok(PipelineSource::File { path: PIPELINE_FILE.to_owned(), bytes: read.bytes }),
        Err(SourceError::NotFound) => Ok(PipelineSource::Missing),
        Err(error @ (SourceError::NotAFile { .. } | SourceError::TooLarge { .. })) => {
            let mut reason = error.reason();
            reason.message = format!("{PIPELINE_FILE}: {}", reason.message);
            Ok(PipelineSource::Unreadable(reason))
        }
        Err(error) => Err(error),
    }
}

/// Whether the commit has pipeline files in `.beespace/`.
pub async fn has_pipeline_folder(commit: &FetchedCommit) -> bool {
    let found = commit.mirror.tree(&commit.head.sha).await.and_then(|tree| tree.matching(PIPELINE_FOLDER, None, 1));
    found.is_ok_and(|entries| !entries.is_empty())
}
