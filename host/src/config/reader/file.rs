//! Keys that name files. In the configuration file, a relative path is relative to the directory of that file.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::{Origin, Section};
use crate::config::value::Value;

impl Section<'_, '_> {
    /// The path of an optional file.
    pub(in crate::config) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let (path, origin) = self.find_file(key).unzip();
        self.push_entry(key, path.as_ref().map(Value::show), origin.unwrap_or(Origin::Default));
        path
    }

    /// A secret: the value of `key`, or the content of the file named by `file_key`, with the path of that file. The layer that
    /// takes precedence may set only one of them.
    pub(in crate::config) fn secret(
        &mut self,
        key: &'static str,
        file_key: &'static str,
    ) -> Option<(SecretString, Option<PathBuf>)> {
        let direct = self.find::<SecretString>(key);
        let file = self.find_file(file_key);
        let (value, path, origin) = match (direct, file) {
            (Some((_, direct)), Some((_, file))) if is_env(&direct) == is_env(&file) => {
                let message = format!("`{0}.{key}` and `{0}.{file_key}` are both set", self.name);
                self.problem_at(Some(&file), "conflict", message, Some("remove one of them".to_owned()));
                return None;
            }
            (direct, Some((path, origin))) if direct.is_none() || is_env(&origin) => {
                (self.read_secret(file_key, &path)?, Some(path), origin)
            }
            (direct, _) => {
                let (value, origin) = direct?;
                (value, None, origin)
            }
        };
        self.record(key, value.show(), origin);
        Some((value, path))
    }

    fn find_file(&mut self, key: &'static str) -> Option<(PathBuf, Origin)> {
        let (path, origin) = self.find::<PathBuf>(key)?;
        let path = if is_env(&origin) { path } else { self.reader.base.join(path) };
        Some((path, origin))
    }

    fn read_secret(&mut self, key: &str, path: &Path) -> Option<SecretString> {
        let value = std::fs::read_to_string(path);
        let problem = match value.as_deref().map(str::trim) {
            Ok("") => "is empty".to_owned(),
            Ok(text) => return Some(SecretString::from(text.to_owned())),
            Err(error) => format!("could not be read: {error}"),
        };
        let message = format!("`{}.{key}`: {} {problem}", self.name, path.display());
        let help = "write the secret on one line, and make the file readable for the user that runs the server";
        self.reader.problem("unreadable", message, None, Some(help.into()));
        None
    }
}

fn is_env(origin: &Origin) -> bool {
    matches!(origin, Origin::Env(_))
}
