//! The text of a step's script: its `run` lines for `sh -e`, each command announced before it runs.
//!
//! `sh -x` would write its trace to stderr, in no order with what the commands write to stdout, and with every value filled in,
//! secrets included. So the announcements are commands of the script themselves: the text as it was written, printed to stdout.

mod shell_split;

/// Prints a line and hands on the status it found, so that `$?` still speaks of the command before.
const ANNOUNCE: &str = r#"_beespace() { set -- "$?" "$1"; printf '%s\n' "$2"; return "$1"; }"#;

/// Makes the script of a step's `run` lines. All of them run in one shell, so that `cd` and `export` last; a line may be a
/// text of many lines, and a construct (`if`, a here-document) may span them.
///
/// Every command is announced as `+ command`, further lines of it as `> `. Where the text cannot be taken apart with
/// certainty, what is left of it is announced as one.
#[must_use]
pub fn script(run: &[String]) -> String {
    let text = run.join("\n");
    let mut script = String::with_capacity(ANNOUNCE.len() + 3 * text.len());
    script.push_str(ANNOUNCE);
    script.push('\n');
    for command in shell_split::commands(&text) {
        if !command.starts_with('#') || command.contains('\n') {
            // As the left side of `&&` a status other than 0 passes through without ending the script.
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

/// One word of the shell, whatever is in `text` (NUL excepted, which no shell can carry).
#[must_use]
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Whether a shell can have a variable of this name.
#[must_use]
pub fn is_variable_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_announced_as_it_was_written() {
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
    fn variables_are_letters_digits_and_underscores() {
        assert!(is_variable_name("_A9"));
        for name in ["", "9A", "A-B", "A B", "A\n", "Ä", "A=B"] {
            assert!(!is_variable_name(name), "{name:?}");
        }
    }
}
