//! Builds the script of a step: its `run` lines for `sh -e`, in which each command is printed before it runs.
//!
//! `sh -x` would write its trace to stderr, unordered with the commands' stdout, and with all variables expanded, secrets
//! included. Instead, the script itself prints each command to stdout, as it was written.

mod shell_split;

/// Prints a line and returns the status that it found, so that `$?` still refers to the command before.
const ANNOUNCE: &str = r#"_beespace() { set -- "$?" "$1"; printf '%s\n' "$2"; return "$1"; }"#;

/// Builds the script from a step's `run` lines. All lines run in one shell, so `cd` and `export` persist. An entry may have
/// several lines, and a construct (`if`, a here-document) may span several entries.
///
/// Every command is printed as `+ command`, and its further lines as `> `. If the text cannot be split reliably, the rest is
/// printed as one command.
#[must_use]
pub fn script(run: &[String]) -> String {
    let text = run.join("\n");
    let mut script = String::with_capacity(ANNOUNCE.len() + 3 * text.len());
    script.push_str(ANNOUNCE);
    script.push('\n');
    for command in shell_split::commands(&text) {
        if !command.starts_with('#') || command.contains('\n') {
            // On the left side of `&&`, a status other than 0 does not end the script.
            script.push_str("_beespace ");
            script.push_str(&quote(&announcement(command)));
            script.push_str(" && :\n");
        }
        script.push_str(command);
        script.push('\n');
    }
    script
}

fn announcement(command: &str) -> String {
    format!("+ {}", command.replace('\n', "\n> "))
}

/// Quotes `text` as one word of the shell. `text` must not contain NUL, which no shell supports.
#[must_use]
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Whether a shell accepts a variable of this name.
#[must_use]
pub fn is_variable_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_printed_as_it_was_written() {
        let run = ["cargo build".to_owned(), "# why\necho 'it''s' $HOME\n\ncat <<EOF\nhi\nEOF".to_owned()];
        let expected = r#"_beespace() { set -- "$?" "$1"; printf '%s\n' "$2"; return "$1"; }
_beespace '+ cargo build' && :
cargo build
# why
_beespace '+ echo '\''it'\'''\''s'\'' $HOME' && :
echo 'it''s' $HOME
_beespace '+ cat <<EOF
> hi
> EOF' && :
cat <<EOF
hi
EOF
"#;
        assert_eq!(script(&run), expected);
    }

    #[test]
    fn variable_names_have_letters_digits_and_underscores() {
        assert!(is_variable_name("_A9"));
        for name in ["", "9A", "A-B", "A B", "A\n", "Ä", "A=B"] {
            assert!(!is_variable_name(name), "{name:?}");
        }
    }
}
