//! The pipeline files of a repository: `.beespace.yml` with one or several pipelines, or `.beespace/*.yml`.

use std::collections::BTreeMap;

use crate::reason::Reason;
use crate::reason_code::ReasonCode;

/// The names of the pipeline file in the root of a repository. A repository has at most one of them.
pub const FILE_NAMES: [&str; 2] = [".beespace.yml", ".beespace.yaml"];

/// The folder in the root of a repository for several pipeline files. It excludes a pipeline file in the root.
pub const FOLDER: &str = ".beespace";

/// Most pipeline files.
pub const MAX_FILES: usize = 100;

/// Most bytes of all pipeline files together. Every build keeps their text.
pub const MAX_ALL_BYTES: u64 = 1024 * 1024;

/// The name of a pipeline without a `name` whose file does not name it either.
pub const DEFAULT_NAME: &str = "default";

/// A pipeline file.
#[derive(Debug, Clone, Copy)]
pub struct SourceFile<'a> {
    /// Path in the repository, for names and messages.
    pub path: &'a str,
    pub bytes: &'a [u8],
}

/// The pipeline files among the paths of a repository, sorted; empty if it has none. Only the root and [`FOLDER`] itself are
/// searched, not the folders in it.
///
/// # Errors
/// Files that exclude each other, both named, or too many files.
pub fn select_files<'p>(paths: impl IntoIterator<Item = &'p str>) -> Result<Vec<&'p str>, Reason> {
    let mut files: Vec<&str> = paths.into_iter().filter(|path| is_pipeline_file(path)).collect();
    files.sort_unstable();
    let (in_folder, in_root): (Vec<&str>, Vec<&str>) = files.iter().partition(|path| file_in_folder(path).is_some());
    match (in_root.as_slice(), in_folder.first()) {
        ([one, other, ..], _) => return Err(both(other, one)),
        ([root], Some(first)) => {
            let message = format!("the repository has both `{root}` and `{FOLDER}/` with pipeline files such as `{first}`");
            let help = format!("move the pipelines of `{root}` into `{FOLDER}/`, or keep only `{root}`");
            return Err(Reason::new(ReasonCode::InvalidFile, message).help(help));
        }
        _ => {}
    }
    let mut stems: BTreeMap<&str, &str> = BTreeMap::new();
    for file in &in_folder {
        if let Some(other) = file.rsplit_once('.').and_then(|(stem, _)| stems.insert(stem, file)) {
            return Err(both(file, other));
        }
    }
    if files.len() > MAX_FILES {
        let message = format!("`{FOLDER}/` has {} pipeline files; at most {MAX_FILES} are allowed", files.len());
        return Err(Reason::new(ReasonCode::InvalidFile, message).help("write several pipelines into one file, divided by `---`"));
    }
    Ok(files)
}

fn both(one: &str, other: &str) -> Reason {
    let message = format!("the repository has both `{one}` and `{other}`");
    Reason::new(ReasonCode::InvalidFile, message).help("remove one of them")
}

fn is_pipeline_file(path: &str) -> bool {
    FILE_NAMES.contains(&path) || file_in_folder(path).is_some()
}

/// The name of a pipeline file within [`FOLDER`].
fn file_in_folder(path: &str) -> Option<&str> {
    let name = path.strip_prefix(FOLDER)?.strip_prefix('/')?;
    (!name.contains('/') && stem(name).is_some()).then_some(name)
}

/// The name without its extension and without a leading dot, as in Woodpecker.
fn stem(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(".yml").or_else(|| name.strip_suffix(".yaml"))?;
    Some(stem.strip_prefix('.').unwrap_or(stem)).filter(|stem| !stem.is_empty())
}

/// The name of a pipeline that has no `name`: the stem of a file in [`FOLDER`], otherwise [`DEFAULT_NAME`].
pub(super) fn default_name(path: &str) -> &str {
    let mut parts = path.rsplit('/');
    let (name, folder) = (parts.next().unwrap_or_default(), parts.next());
    folder.filter(|folder| *folder == FOLDER).and_then(|_| stem(name)).unwrap_or(DEFAULT_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(paths: &[&str]) -> String {
        select_files(paths.iter().copied()).unwrap_err().message
    }

    #[test]
    fn the_root_file_or_the_files_of_the_folder_are_selected() {
        let selected = |paths: &[&'static str]| select_files(paths.iter().copied()).unwrap();
        assert_eq!(selected(&["src/.beespace.yml", "README.md"]), Vec::<&str>::new());
        assert_eq!(selected(&[".beespace.yaml", ".beespace/check.sh", ".beespace/old/a.yml"]), [".beespace.yaml"]);
        assert_eq!(
            selected(&[".beespace/test.yml", ".beespace/.yml", ".beespace/lint.yaml"]),
            [".beespace/lint.yaml", ".beespace/test.yml"]
        );
    }

    #[test]
    fn files_that_exclude_each_other_are_both_named() {
        assert_eq!(message(&[".beespace.yaml", ".beespace.yml"]), "the repository has both `.beespace.yml` and `.beespace.yaml`");
        assert_eq!(
            message(&[".beespace/a.yml", ".beespace/a.yaml"]),
            "the repository has both `.beespace/a.yml` and `.beespace/a.yaml`"
        );
        assert_eq!(
            message(&[".beespace/lint.yml", ".beespace.yml"]),
            "the repository has both `.beespace.yml` and `.beespace/` with pipeline files such as `.beespace/lint.yml`"
        );
    }

    #[test]
    fn the_number_of_files_is_limited() {
        let paths: Vec<String> = (0..=MAX_FILES).map(|file| format!(".beespace/{file}.yml")).collect();
        let most = paths.iter().skip(1).map(String::as_str);
        assert_eq!(select_files(most).unwrap().len(), MAX_FILES);
        assert!(select_files(paths.iter().map(String::as_str)).is_err());
    }

    #[test]
    fn a_pipeline_without_a_name_is_named_after_its_file() {
        assert_eq!(default_name(".beespace/lint.yml"), "lint");
        assert_eq!(default_name("/src/hive/.beespace/.db-test.yaml"), "db-test");
        assert_eq!(default_name(".beespace.yml"), DEFAULT_NAME);
        assert_eq!(default_name("ci/lint.yml"), DEFAULT_NAME);
    }
}
