//! Names of git refs. They are untrusted: an attacker with push access can choose any name that git allows, and the name is
//! passed to git as an argument and shown on pages.

/// Prefix of the full name of every branch.
pub const BRANCHES: &str = "refs/heads/";
/// Prefix of the full name of every tag.
pub const TAGS: &str = "refs/tags/";

/// Whether git allows a ref with this full name (`git check-ref-format`). Gogs cannot have sent any other name.
///
/// A valid name may still start with `-` after its last slash, contain `$(…)` or quotes, or look like a commit id. It is
/// therefore passed to git in full and after `--end-of-options`, and to no other program as an argument.
#[must_use]
pub fn is_well_formed(git_ref: &str) -> bool {
    git_ref.starts_with("refs/")
        && git_ref.len() <= 1024
        && !git_ref.ends_with('.')
        && !git_ref.contains("..")
        && !git_ref.contains("@{")
        && !git_ref.chars().any(|c| c.is_ascii_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\'))
        && git_ref.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_that_git_allows_are_allowed() {
        for name in [
            "--upload-pack=x",
            "--exec=sh${IFS}x",
            "$(id)",
            "a'b\"c;d&e|f",
            "0".repeat(40).as_str(),
            "ünïcode-分支",
            "a/b/c",
            "@",
        ] {
            assert!(is_well_formed(&format!("refs/heads/{name}")), "{name}");
        }
    }

    #[test]
    fn names_that_git_cannot_have_are_refused() {
        let names = [
            "", "a b", "a\nb", "a..b", "a/", "/a", "a//b", ".a", "a/.b", "a.lock", "a.", "a~1", "a^", "a:b", "a@{1}", "a\\b", "*",
        ];
        for name in names {
            assert!(!is_well_formed(&format!("refs/heads/{name}")), "{name:?}");
        }
        assert!(!is_well_formed("main"));
    }
}
