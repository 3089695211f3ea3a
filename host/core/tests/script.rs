//! The script of a step does what its `run` lines do: generated scripts are run by the shells of this machine, with and without
//! the printing of commands, and must have the same output, files and exit code.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "an unexpected value fails the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use beespace_core::script::script;
use proptest::prelude::*;

/// Words that resemble something else: comments, reserved words, ends of constructs.
const WORDS: &[&str] = &[
    "a",
    "x#y",
    "#z",
    "\"$x\"#b",
    "\"$x\"#'b\nc'",
    "$(echo q)#'r\ns'",
    "$((1 + 2))#t",
    "`echo k`#v",
    "'it\n# s'",
    "\"a # b\"",
    "\"u\n$(echo n # don't\n)\"",
    "\\#",
    "${x#a}",
    "a\\\nb",
    "\\\n#c",
    "if",
    "done",
    "esac",
    "}",
    "$#",
    "$?",
    "2>&1",
    ">f",
    "7>&1",
];

const COMMANDS: &[&str] = &["echo", "x=", "true", "false", "echo 1; echo", ": >&2", "(exit 3); echo", "cat f", "exec >out; echo"];

const TAILS: &[&str] =
    &["", "", "", ";", " # don't", " #\"", ";# `", " \\\n  b", " || echo $?", " &&\n\n echo and", " | # '\n cat"];

/// Pieces that break a script, or change where its commands end.
const JUNK: &[&str] = &[
    "#",
    "\"",
    "'",
    "`",
    "$(",
    ")",
    "(",
    "{",
    "}",
    ";",
    "\n",
    "\\",
    "\\\n",
    " ",
    "<<E\n",
    "<<-'E'\n",
    "E\n",
    "fi",
    "done",
    "esac",
    ";;",
    "$((",
    "))",
    "${",
    "$'",
    "! ",
    "case x in\n",
    "if true\nthen\n",
    "<",
    "\t",
    "[[ ",
    "( )\n",
];

fn simple() -> impl Strategy<Value = String> {
    let words = proptest::collection::vec(proptest::sample::select(WORDS), 0..4);
    (proptest::sample::select(COMMANDS), words, proptest::sample::select(TAILS))
        .prop_map(|(command, words, tail)| format!("{command} {}{tail}", words.join(" ")))
}

fn construct() -> impl Strategy<Value = String> {
    simple().prop_recursive(3, 12, 3, |inner| {
        let list = || proptest::collection::vec(inner.clone(), 1..3).prop_map(|commands| commands.join("\n"));
        prop_oneof![
            list().prop_map(|body| format!("if true; then\n{body}\nfi")),
            (list(), list()).prop_map(|(a, b)| format!("if false\nthen {a}\nelse # '\n{b}\nfi")),
            list().prop_map(|body| format!("for i in 1 2; do\n{body}\ndone")),
            list().prop_map(|body| format!("case a in\n (b) ;;\n a|c)\n{body}\n;; # \"\nesac")),
            list().prop_map(|body| format!("case a in a) $(echo echo) esac\n{body}\n;;\nesac")),
            list().prop_map(|body| format!("{{ {body}\n}}")),
            list().prop_map(|body| format!("(\n{body}\n)")),
            list().prop_map(|body| format!("x=$({body}\n)#d")),
            list().prop_map(|body| format!("g() # it's\n{{\n{body}\n}}\ng")),
            list().prop_map(|body| format!("h ( )\n{{\n{body}\n}}\nh")),
            list().prop_map(|body| format!("cat <<E\n{body}\nE")),
            list().prop_map(|body| format!("cat <<-'E' | cat\n{body}\n\tE")),
            list().prop_map(|body| format!("x=\"$(cat <<E\n{body}\nE\n)\"; echo \"$x\"")),
            list().prop_map(|body| format!("echo p |&\ncat\n{body}")),
        ]
    })
}

/// Lines of a script, often with one piece at a place where it does not belong.
fn run_text() -> impl Strategy<Value = String> {
    let text = proptest::collection::vec(construct(), 1..5).prop_map(|parts| parts.join("\n"));
    (text, proptest::option::of((any::<proptest::sample::Index>(), proptest::sample::select(JUNK)))).prop_map(|(text, junk)| {
        let Some((at, junk)) = junk else { return text };
        let at = text.floor_char_boundary(at.index(text.len() + 1));
        format!("{}{junk}{}", &text[..at], &text[at..])
    })
}

/// The effects of a script: its exit code, its standard output, and the files that it leaves.
fn effects(shell: &[&str], script: &str) -> (Option<i32>, String, BTreeMap<String, String>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("script");
    std::fs::write(&path, script).unwrap();
    let work = directory.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg("-e").arg(&path).current_dir(&work);
    command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    let output = command.output().unwrap();
    let files = std::fs::read_dir(&work).unwrap().map(|entry| entry.unwrap());
    let files = files.map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap()));
    let files = files.map(|(name, bytes)| (name, without_line_numbers(&bytes))).collect();
    (output.status.code(), without_line_numbers(&output.stdout), files)
}

/// Some output without the places in the script that a shell puts before its errors: `/tmp/x/script: line 3: `.
fn without_line_numbers(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines = text.split('\n').map(|line| {
        let error = line.split_once("/script: ").and_then(|(_, place)| place.split_once(": "));
        error.map_or(line, |(_, error)| error)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The script without the printed commands, and with the errors of the shell elsewhere, because they contain line numbers.
fn silent(script: &str) -> String {
    let (first, rest) = script.split_once('\n').unwrap();
    assert!(first.starts_with("exec 2>&1"), "{first}");
    format!("{}\n{rest}", first.replace("&1", "/dev/null"))
}

fn shells() -> Vec<Vec<&'static str>> {
    let candidates = [vec!["/bin/sh"], vec!["/bin/bash", "--posix"], vec!["/bin/busybox", "sh"]];
    candidates.into_iter().filter(|words| Path::new(words[0]).exists()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printing_the_commands_changes_nothing(text in run_text()) {
        let printed = silent(&script(std::slice::from_ref(&text)));
        for shell in shells() {
            let plain = effects(&shell, &format!("exec 2>/dev/null\n{text}\n"));
            prop_assert_eq!(effects(&shell, &printed), plain, "{:?}\n{}\n---\n{}", shell, text, printed);
        }
    }
}

#[test]
fn commands_and_their_errors_keep_their_order_even_when_output_is_redirected() {
    let run = ["echo one", "echo two >&2", "exec >out", "echo {}", "exec 3>&1 1>/dev/null", "nonsense )"].map(str::to_owned);
    let (code, stdout, files) = effects(&["/bin/sh"], &script(&run));
    let lines: Vec<&str> = stdout.lines().collect();
    let expected = ["+ echo one", "one", "+ echo two >&2", "two", "+ exec >out", "+ echo {}", "+ exec 3>&1 1>/dev/null"];
    assert_eq!(lines[..expected.len()], expected);
    assert_eq!(files["out"], "{}\n", "the commands are not in the file of the script");
    // A shell reports a syntax error after the command that contains it, although the error goes to another stream.
    assert_eq!(lines[expected.len()], "+ nonsense )");
    assert_eq!(code, Some(2));
}
