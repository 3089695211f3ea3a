//! Hostile pipeline files and random text: the reader returns a result within its budget and never panics.

#![expect(clippy::unwrap_used, reason = "an unexpected value fails the test")]

use beespace_core::diagnostic::Diagnostic;
use beespace_core::pipeline::{MAX_BYTES, ParsedPipeline, SourceFile, read, read_files};
use proptest::prelude::*;

fn codes(text: &str) -> Vec<String> {
    let diagnostics = read("f", text.as_bytes()).err().unwrap_or_default();
    diagnostics.into_iter().map(|diagnostic| diagnostic.code).collect()
}

/// Invariants of every result of the reader.
fn check(text: &[u8], result: &Result<ParsedPipeline, Vec<Diagnostic>>) -> Result<(), TestCaseError> {
    match result {
        Ok(located) => {
            let document = located.pipeline.document();
            let again: beespace_core::pipeline::Pipeline = serde_json::from_str(&document.json).unwrap();
            prop_assert_eq!(&again, &located.pipeline, "the normal form reads back");
            prop_assert!(located.spans.find("/steps/0").is_some());
        }
        Err(diagnostics) => {
            prop_assert!(!diagnostics.is_empty() && diagnostics.len() <= 101);
            let lines = String::from_utf8_lossy(text).lines().count().max(1) + 1;
            for diagnostic in diagnostics {
                prop_assert!(!diagnostic.message.chars().any(char::is_control), "{:?}", diagnostic.message);
                prop_assert!(diagnostic.message.len() < 1_000);
                if let Some(span) = diagnostic.span {
                    prop_assert!(span.line >= 1 && span.column >= 1 && (span.line as usize) <= lines, "{span:?}");
                    prop_assert!((span.end_line, span.end_column) >= (span.line, span.column), "{span:?}");
                }
            }
        }
    }
    Ok(())
}

/// Fragments from which files are built, valid or not.
const PIECES: &[&str] = &[
    "steps:",
    "\n",
    "  ",
    "- ",
    "name: ",
    "image: ",
    "run: ",
    "a",
    "b",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ": ",
    "&x ",
    "*x",
    "<<: ",
    "when: ",
    "needs: ",
    "env: ",
    "\"",
    "'",
    "|\n",
    ">-\n",
    "#",
    "---\n",
    "...\n",
    "!t ",
    "? ",
    "~",
    "clone: ",
    "event: ",
    "status: ",
    "x-a: ",
    "${{ a }}",
    "\t",
    "\u{1b}",
    "\r\n",
    "with: ",
    "uses: ",
    "%YAML 1.2\n",
    "\u{feff}",
    "ü",
    "timeout: ",
    "branch: ",
    "!",
    "**",
    "1",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_get_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&bytes, &read("f", &bytes))?;
    }

    #[test]
    fn any_text_gets_a_result(text in "\\PC{0,200}") {
        check(text.as_bytes(), &read("f", text.as_bytes()))?;
    }

    #[test]
    fn any_sequence_of_fragments_gets_a_result(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..60)) {
        let text = pieces.concat();
        check(text.as_bytes(), &read("f", text.as_bytes()))?;
    }

    #[test]
    fn a_damaged_valid_file_gets_a_result(at in 0..400_usize, piece in proptest::sample::select(PIECES), cut in 0..20_usize) {
        let good = include_str!("../../../tests/fixtures/pipeline/tour/pipeline.yml");
        let start = good.floor_char_boundary(at.min(good.len()));
        let end = good.floor_char_boundary((start + cut).min(good.len()));
        let text = format!("{}{piece}{}", &good[..start], &good[end..]);
        check(text.as_bytes(), &read("f", text.as_bytes()))?;
    }

    #[test]
    fn text_in_env_is_kept_unchanged(value in "[\\PC\n\t]{0,40}") {
        prop_assume!(!value.contains("${{"));
        let text = format!("env: {{A: {}}}\nsteps: [{{name: a, image: x}}]\n", serde_json::to_string(&value).unwrap());
        let located = read("f", text.as_bytes()).map_err(|diagnostics| TestCaseError::fail(format!("{diagnostics:?}")))?;
        prop_assert_eq!(located.pipeline.env.get("A"), Some(&beespace_core::pipeline::EnvValue::Text(value)));
    }
}

#[test]
fn unclosed_brackets_are_refused_by_depth() {
    for bracket in ["[", "{a: ", "- ", "? ", "[{"] {
        let answer = read("f", bracket.repeat(MAX_BYTES / bracket.len()).as_bytes()).unwrap_err();
        assert_eq!(answer[0].code, "too-large", "{bracket}: {answer:?}");
    }
}

#[test]
fn an_alias_is_counted_before_it_is_copied() {
    // Ten to the hundredth: copying first would end in the kernel killing us, not in a slow test.
    let mut text = "x-0: &a0 [l,l,l,l,l,l,l,l,l,l]\n".to_owned();
    for level in 1..=100 {
        let before = level - 1;
        text.push_str(&format!("x-{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(",")));
    }
    assert_eq!(codes(&text), ["too-large"]);
}

#[test]
fn long_text_is_not_multiplied_by_aliases() {
    let text = format!("x-a: &a \"{}\"\nx-b: [{}]\n", "t".repeat(100_000), vec!["*a"; 5_000].join(","));
    assert_eq!(codes(&text), ["too-large"]);
}

#[test]
fn aliases_do_not_build_what_brackets_may_not() {
    let mut text = format!("x-0: &a0 {}{}\n", "[".repeat(20), "]".repeat(20));
    text.push_str(&format!("x-1: {}*a0{}\n", "[".repeat(20), "]".repeat(20)));
    assert_eq!(codes(&text), ["too-large"]);
}

#[test]
fn a_scalar_of_ten_megabytes_is_refused_unread() {
    assert_eq!(codes(&format!("steps: {}", "x".repeat(10 << 20))), ["too-large"]);
}

#[test]
fn many_keys_and_many_merges_stay_within_the_budget() {
    let keys: String = (0..20_000).map(|key| format!("k{key}: 1\n")).collect();
    assert_eq!(codes(&keys), ["too-large"]);
    let merges = format!("x-a: &a {{b: c}}\nsteps:\n- <<: [{}]\n", vec!["*a"; 20_000].join(","));
    assert_eq!(codes(&merges), ["too-large"]);
}

#[test]
fn long_keys_do_not_multiply_in_the_map_of_places() {
    let key = "k".repeat(250);
    let (open, close) = (format!("{{{key}: ").repeat(25), "}".repeat(25));
    let deep = format!("{open}[{}]{close}", vec!["1"; 4_000].join(","));
    let text = format!("steps: [{{name: a, uses: b, with: {deep}}}]\n");
    let located = read("f", text.as_bytes()).unwrap();
    let bytes: usize = located.spans.iter().map(|(pointer, _)| pointer.len()).sum();
    assert!(bytes < 10_000, "{bytes}");
}

#[test]
fn more_steps_than_a_build_may_have_are_refused() {
    let steps = |count: usize| (0..count).map(|step| format!("  - {{name: s{step}, image: x}}\n")).collect::<String>();
    assert_eq!(codes(&format!("steps:\n{}", steps(501))), ["too-large"]);
    assert!(read("f", format!("steps:\n{}", steps(500)).as_bytes()).is_ok());
}

#[test]
fn the_text_of_all_files_together_is_limited() {
    let file = format!("env: {{ A: &a {0}, B: *a, C: *a, D: *a }}\nsteps: [{{ name: a, image: x }}]\n", "x".repeat(100_000));
    let paths = [".beespace/a.yml", ".beespace/b.yml", ".beespace/c.yml"];
    let files = paths.map(|path| SourceFile { path, bytes: file.as_bytes() });
    assert!(read_files(&files[..2]).is_ok());
    let problems = read_files(&files).unwrap_err();
    assert_eq!((problems[0].code.as_str(), problems[0].file.as_str()), ("too-large", paths[2]), "{problems:?}");
}

#[test]
fn the_pairs_of_stages_that_need_each_other_are_bounded() {
    let file = |cells: usize| {
        let axis: String = (0..cells).map(|cell| format!("{cell},")).collect();
        let pipeline = |name: &str, needs: &str| {
            format!("name: {name}\n{needs}matrix: {{ axes: {{ x: [{axis}] }} }}\nsteps: [{{ name: s, image: x }}]\n")
        };
        format!("{}---\n{}", pipeline("a", ""), pipeline("b", "needs: [a]\n"))
    };
    let read = |cells| read_files(&[SourceFile { path: ".beespace.yml", bytes: file(cells).as_bytes() }]);
    assert_eq!(read(141).unwrap().len(), 282);
    let problems = read(142).unwrap_err();
    assert!(problems[0].message.contains("more than 20000 pairs of stages"), "{problems:?}");
}

#[test]
fn the_values_of_all_files_are_bounded_together() {
    let list = format!("[{}]", vec!["a"; 1_000].join(","));
    let step =
        |number: usize| format!("  - {{ name: s{number}, image: x, args: {} }}\n", if number == 0 { "&a LIST" } else { "*a" });
    let steps: String = (0..9).map(step).collect();
    let text = format!("steps:\n{}", steps.replace("LIST", &list));
    let names: Vec<String> = (0..6).map(|number| format!(".beespace/{number}.yml")).collect();
    let files: Vec<SourceFile<'_>> = names.iter().map(|path| SourceFile { path, bytes: text.as_bytes() }).collect();
    assert!(read_files(&files[..5]).is_ok());
    let problems = read_files(&files).unwrap_err();
    assert!(problems[0].message.starts_with("the files contain more than 50000 values"), "{problems:?}");
}

#[test]
fn the_cells_of_all_matrices_together_are_limited() {
    let cells: String = (0..100).map(|cell| format!("{cell},")).collect();
    let file = |text: usize| {
        format!("matrix: {{ axes: {{ a: [{cells}] }} }}\nenv: {{ A: {} }}\nsteps: [{{ name: a, image: x }}]\n", "x".repeat(text))
    };
    assert_eq!(codes(&file(200_000)), ["too-large"]);
    assert!(read("f", file(100_000).as_bytes()).is_ok());
}

#[test]
fn thousands_of_problems_are_cut() {
    let keys: String = (0..4_000).map(|key| format!("k{key}: 1\n")).collect();
    assert_eq!(codes(&keys).len(), 101);
}
