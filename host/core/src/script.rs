//! Builds the script of a step: its `run` lines for `sh -e`, in which each command is printed before it runs.
//!
//! `sh -x` would write its trace with all variables expanded, secrets included. Instead, the script itself prints each command as
//! it was written.
//!
//! Standard output and standard error share one pipe, so that a command, its output and its errors keep their order. The commands
//! are printed to a descriptor of their own, which stays open however the script redirects its output.

mod shell_split;

/// The descriptors that commands may be printed to. A shell guarantees only those of one digit, and scripts use 3 and 9 most.
const DESCRIPTORS: [char; 7] = ['7', '6', '8', '5', '4', '9', '3'];

/// Builds the script from a step's `run` lines. All lines run in one shell, so `cd` and `export` persist. An entry may have
/// several lines, and a construct (`if`, a here-document) may span several entries.
///
/// Every command is printed as `+ command`, and its further lines as `> `. If the text cannot be split reliably, the rest is
/// printed as one command. If the text uses every descriptor itself, nothing is printed.
#[must_use]
pub fn script(run: &[String]) -> String {
    let text = run.join("\n");
    let Some(descriptor) = DESCRIPTORS.into_iter().find(|digit| !may_redirect(&text, *digit)) else {
        return format!("exec 2>&1\n{text}\n");
    };
    let mut script = format!("exec 2>&1 {descriptor}>&1\n");
    // Prints a line and returns the status that it found, so that `$?` still refers to the command before.
    let print = r#"set -- "$?" "$1"; command printf '%s\n' "$2""#;
    script.push_str(&format!("_beespace() {{ {print} >&{descriptor}; return \"$1\"; }}\n"));
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

/// Whether a text may use the descriptor with this digit: `7>`, `<&7`, `/dev/fd/7`.
fn may_redirect(text: &str, digit: char) -> bool {
    text.match_indices(digit).any(|(at, _)| {
        let (before, after) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        before.ends_with(['<', '>', '&']) || before.ends_with("fd/") || after.starts_with(['<', '>'])
    })
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
        let expected = r#"exec 2>&1 7>&1
_beespace() { set -- "$?" "$1"; command printf '%s\n' "$2" >&7; return "$1"; }
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
    fn a_script_keeps_the_descriptors_that_it_uses() {
        let uses = |run: &str| script(&[run.to_owned()]).lines().next().unwrap().to_owned();
        assert_eq!(uses("flock 9; echo 7 6"), "exec 2>&1 7>&1");
        assert_eq!(uses("exec 7>lock; flock 7"), "exec 2>&1 6>&1");
        assert_eq!(uses("echo a >&7 6<&0"), "exec 2>&1 8>&1");
        assert_eq!(uses("cat /dev/fd/7"), "exec 2>&1 6>&1");
        let all: String = DESCRIPTORS.iter().map(|digit| format!("exec {digit}>&1\n")).collect();
        assert_eq!(script(std::slice::from_ref(&all)), format!("exec 2>&1\n{all}\n"));
    }

    #[test]
    fn variable_names_have_letters_digits_and_underscores() {
        assert!(is_variable_name("_A9"));
        for name in ["", "9A", "A-B", "A B", "A\n", "Ä", "A=B"] {
            assert!(!is_variable_name(name), "{name:?}");
        }
    }
}
