//! Rules of the project that no compiler checks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The budget of lines of a file, without its tests.
const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 60;
const FLOW_FUNCTION_LINES: usize = 40;
const MAIN_LINES: usize = 60;

/// The width of a line, as in rustfmt.toml. rustfmt wraps neither comments nor strings.
const COLUMNS: usize = 130;

/// The permitted dependencies of core: nothing that does I/O, reads the clock or runs programs.
const CORE_DEPENDENCIES: &[&str] = &[
    "aho-corasick",
    "base64",
    "croner",
    "globset",
    "granit-parser",
    "hex",
    "hmac",
    "jiff",
    "percent-encoding",
    "semver",
    "serde",
    "serde_json",
    "sha2",
    "strsim",
    "thiserror",
    "uuid",
    "zeroize",
];

/// Module names that do not describe their content.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "manager", "service", "handler"];

/// The files and folders of the repository root, except dot-files.
const TOP: &[&str] = &[
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "SECURITY.md",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "docs",
    "examples",
    "host",
    "plugins",
    "rustfmt.toml",
    "tests",
    "wit",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files_under(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "node_modules") {
                files_under(&path, into);
            }
        } else {
            into.push(path);
        }
    }
}

fn rust_sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["host", "plugins", "tests"] {
        files_under(&root().join(folder), &mut files);
    }
    let sources = files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    sources
        .map(|file| {
            let name = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&file).unwrap();
            (name, text)
        })
        .collect()
}

/// The part of a file before its unit tests, which are last.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests").next().unwrap()
}

fn is_product(name: &str) -> bool {
    name.starts_with("host/") && !name.contains("/tests/") && !name.contains("/benches/")
}

#[test]
fn files_stay_small() {
    let too_long: Vec<_> = rust_sources()
        .into_iter()
        .filter(|(name, _)| is_product(name) || name.starts_with("plugins/"))
        .map(|(name, text)| (without_tests(&text).lines().count(), name))
        .filter(|(lines, name)| *lines > if name == "host/src/main.rs" { MAIN_LINES } else { FILE_LINES })
        .collect();
    assert!(too_long.is_empty(), "over the budget of {FILE_LINES} lines ({MAIN_LINES} for main.rs): {too_long:#?}");
}

#[test]
fn lines_of_rust_fit_their_width() {
    let wide = |(name, text): (String, String)| {
        let lines = text.lines().enumerate().filter(|(_, line)| line.chars().count() > COLUMNS);
        lines.map(|(index, _)| format!("{name}:{}", index + 1)).collect::<Vec<_>>()
    };
    let too_wide: Vec<String> = rust_sources().into_iter().flat_map(wide).collect();
    assert!(too_wide.is_empty(), "more than {COLUMNS} columns: {too_wide:#?}");
}

#[test]
fn functions_stay_small() {
    let mut too_long = Vec::new();
    for (name, text) in rust_sources().into_iter().filter(|(name, _)| is_product(name) || name.starts_with("plugins/")) {
        let budget = if name == "host/src/flow.rs" { FLOW_FUNCTION_LINES } else { FUNCTION_LINES };
        for (function, lines) in functions(without_tests(&text)) {
            if lines > budget {
                too_long.push(format!("{name}: {function} has {lines} lines, the budget is {budget}"));
            }
        }
    }
    assert!(too_long.is_empty(), "{too_long:#?}");
}

/// Functions with their lengths. rustfmt aligns a function's closing brace with its first line.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let tokens: Vec<&str> = trimmed.split_whitespace().take_while(|token| !token.contains('(')).collect();
        let is_function = trimmed.starts_with("fn ") || tokens.contains(&"fn");
        if !is_function || trimmed.starts_with("//") {
            continue;
        }
        let indent = line.len() - trimmed.len();
        let close = format!("{}}}", " ".repeat(indent));
        let body = lines.iter().skip(start).position(|line| line.ends_with('{') || line.ends_with(';'));
        let Some(body) = body.filter(|body| lines[start + body].ends_with('{')) else { continue };
        if let Some(length) = lines.iter().skip(start + body).position(|line| *line == close) {
            let name = trimmed.split("fn ").nth(1).and_then(|rest| rest.split(['(', '<']).next()).unwrap_or("?");
            found.push((name.to_owned(), body + length + 1));
        }
    }
    found
}

#[test]
fn module_names_describe_their_content() {
    let empty: Vec<_> = rust_sources()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| {
            Path::new(name).components().any(|part| {
                let part = part.as_os_str().to_string_lossy();
                EMPTY_NAMES.contains(&part.trim_end_matches(".rs"))
            })
        })
        .collect();
    assert!(empty.is_empty(), "{empty:#?}");
}

#[test]
fn core_has_no_dependency_with_side_effects() {
    let manifest = std::fs::read_to_string(root().join("host/core/Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let names: BTreeSet<&str> =
        dependencies.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|name| !name.is_empty()).collect();
    let allowed: BTreeSet<&str> = CORE_DEPENDENCIES.iter().copied().collect();
    let more: Vec<_> = names.difference(&allowed).collect();
    assert!(more.is_empty(), "beespace-core must not depend on {more:?}");
    for (name, text) in rust_sources().into_iter().filter(|(name, _)| name.starts_with("host/core/src/")) {
        for item in [
            "std::fs",
            "std::net::Tcp",
            "std::net::Udp",
            "std::net::ToSocketAddrs",
            "std::process",
            "std::thread",
            "SystemTime::now",
            "Instant::now",
        ] {
            assert!(!without_tests(&text).contains(item), "{name} uses {item}: core must not perform I/O");
        }
    }
}

/// A released server must not be killable through an environment variable (`host/src/fail_point.rs`).
#[test]
fn only_the_tests_enable_fail_points() {
    let mut files = vec![root().join("Cargo.toml")];
    for folder in ["host", "plugins", "tests", "examples"] {
        files_under(&root().join(folder), &mut files);
    }
    let arming: Vec<_> = files.into_iter().filter(|file| file.ends_with("Cargo.toml") && names_fail_points(file)).collect();
    assert_eq!(arming, [root().join("tests/Cargo.toml")]);
    // Cargo unifies the features of everything that it builds at a time, so it must not build the tests by default.
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("\ndefault-members = [\"host\"]\n"), "the tests are built with the server");
}

/// Whether a manifest enables the feature. The line that declares the feature does not count.
fn names_fail_points(manifest: &Path) -> bool {
    let text = std::fs::read_to_string(manifest).unwrap();
    let mut lines = text.lines().map(|line| line.split('#').next().unwrap().trim_start());
    lines.any(|line| line.contains("fail-points") && !line.starts_with("fail-points ="))
}

#[test]
fn one_crate_names_wasmtime() {
    for (name, text) in
        rust_sources().into_iter().filter(|(name, _)| name.starts_with("host/") && !name.starts_with("host/wasm/"))
    {
        let uses = without_tests(&text).lines().any(|line| line.contains("wasmtime::") || line.contains("wasmtime_wasi"));
        assert!(!uses, "{name} names wasmtime; only host/wasm may");
    }
}

#[test]
fn every_path_in_architecture_exists() {
    let map = std::fs::read_to_string(root().join("host/ARCHITECTURE.md")).unwrap();
    let mut missing = Vec::new();
    for path in map.split('`').skip(1).step_by(2).filter(|text| is_path(text)) {
        let candidates = [root().join(path), root().join("host").join(path), root().join("host/src").join(path)];
        if !candidates.iter().any(|candidate| candidate.exists()) {
            missing.push(path.to_owned());
        }
    }
    assert!(missing.is_empty(), "host/ARCHITECTURE.md names what is not there: {missing:#?}");
}

/// Whether a text is the path of a file, a folder or a program: `host/src/flow.rs`, `host/src/run/`, `tests/bench`.
fn is_path(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    let named = [".rs", ".md", ".toml", "/"].iter().any(|end| text.ends_with(end));
    let starts_at_top = text.split_once('/').is_some_and(|(first, _)| TOP.contains(&first));
    plain && (named || starts_at_top) && !text.starts_with(['/', '.'])
}

#[test]
fn the_repository_root_has_no_other_files() {
    let mut more = Vec::new();
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !TOP.contains(&name.as_str()) && !matches!(name.as_str(), "target" | "node_modules") {
            more.push(name);
        }
    }
    assert!(more.is_empty(), "{more:?}");
}

/// Folders of test data. Each file and folder in them must be named in a test or script.
const FIXTURES: &[&str] = &["tests/fixtures", "tests/fixtures/fuzz", "tests/fixtures/plugins", "tests/guests"];

#[test]
fn every_fixture_and_every_guest_is_used() {
    let mut sources: String = rust_sources().into_iter().map(|(_, text)| text).collect();
    for script in ["tests/run", "plugins/build", "plugins/Cargo.toml"] {
        sources.push_str(&std::fs::read_to_string(root().join(script)).unwrap_or_default());
    }
    let mut orphans = Vec::new();
    for folder in FIXTURES.iter().map(|folder| root().join(folder)).filter(|folder| folder.is_dir()) {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            let stem = name.split('.').next().unwrap().to_owned();
            if !sources.contains(&name) && !sources.contains(&format!("\"{stem}\"")) && !sources.contains(&format!("/{stem}")) {
                orphans.push(name);
            }
        }
    }
    assert!(orphans.is_empty(), "no test uses {orphans:?}");
}

/// What comes before the text of an error or of its remedy.
const ERROR_TEXTS: &[&str] =
    &["Problem::bad_request(", "Problem::conflict(", "Failure::new(", ".help(", "let help = ", "let detail = ", "#[error("];

/// Names that begin an error in upper case.
const NAMES: &[&str] = &["Gogs", "Beespace", "BEESPACE_", "HTTP_", "SIG"];

/// The string literals that follow a marker, also through `format!(` and an exit code.
fn texts_after<'t>(source: &'t str, marker: &str) -> Vec<&'t str> {
    let literal = |after: &'t str| {
        let (before, text) = after.split_once('"')?;
        let is_direct = before.chars().all(|c| c.is_alphanumeric() || " \n:,!(".contains(c));
        let end = text.match_indices('"').map(|(at, _)| at).find(|at| !text[..*at].ends_with('\\'))?;
        is_direct.then(|| &text[..end])
    };
    source.split(marker).skip(1).filter_map(literal).collect()
}

#[test]
fn errors_begin_in_lower_case_and_end_without_a_full_stop() {
    let is_wrong = |text: &&str| {
        let is_upper = text.starts_with(char::is_uppercase) && !NAMES.iter().any(|name| text.starts_with(name));
        is_upper || text.ends_with('.')
    };
    let mut count = 0;
    let mut wrong = Vec::new();
    for (file, source) in rust_sources().iter().filter(|(file, _)| file.starts_with("host/src/")) {
        for marker in ERROR_TEXTS {
            let texts = texts_after(source, marker);
            count += texts.len();
            wrong.extend(texts.into_iter().filter(is_wrong).map(|text| format!("{file}: {text}")));
        }
    }
    assert!(count > 150, "only {count} texts were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
