//! The layers: which module may use which. A new use needs an entry here, so that a reviewer sees it. A cycle is never allowed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::module_graph::{Edges, ModuleGraph, find_cycle};

/// Modules, each with the modules that it uses.
type Layers = &'static [(&'static str, &'static [&'static str])];

const CORE: Layers = &[
    ("baseline_policy", &["cycle", "image_ref", "plan", "policy", "units"]),
    ("build", &["diagnostic", "digest", "event", "ids", "outcome", "pipeline", "plan", "policy", "status", "time"]),
    ("change_event", &["ids", "notice", "status"]),
    ("cycle", &[]),
    ("diagnostic", &[]),
    ("digest", &[]),
    ("environment", &["build", "plan", "status", "time"]),
    ("event", &["ids"]),
    ("git_ref", &[]),
    ("gogs", &["ids", "outcome", "verify"]),
    ("graph", &["build", "ids", "outcome", "pipeline", "status"]),
    ("ids", &[]),
    ("image_ref", &[]),
    ("mask", &[]),
    ("notice", &["build", "digest", "ids", "outcome", "time"]),
    ("outcome", &["plan", "policy", "status", "units"]),
    ("pipeline", &["cycle", "diagnostic", "digest", "event", "ids", "outcome", "sanitize", "status", "units"]),
    ("plan", &["digest", "pipeline", "script"]),
    ("plugin_context", &["build", "digest", "event", "ids", "pipeline", "time"]),
    ("policy", &["baseline_policy", "build", "digest", "ids", "pipeline", "plan", "time"]),
    ("sanitize", &[]),
    ("script", &[]),
    ("status", &[]),
    ("time", &[]),
    ("trigger", &["event", "git_ref", "gogs", "ids", "outcome", "verify"]),
    ("units", &[]),
    ("user_action", &["build", "digest", "ids", "outcome", "policy", "status", "time"]),
    ("verify", &["digest"]),
];

const WASM: Layers = &[
    ("aot", &[]),
    ("bindings", &["host_functions"]),
    ("call", &["engine", "error", "state", "threads"]),
    ("convert", &["bindings", "error", "sanitize"]),
    ("converter", &["bindings", "call", "convert", "diagnostic", "error", "load", "load_error", "manifest", "plugin", "state"]),
    ("diagnostic", &["bindings", "convert", "sanitize"]),
    ("egress", &["grant", "host_functions"]),
    ("engine", &[]),
    ("error", &["limits", "sanitize"]),
    ("grant", &[]),
    ("host_functions", &["bindings", "error", "sanitize", "state"]),
    ("limits", &[]),
    ("link", &["bindings", "grant", "load_error", "manifest", "sanitize", "state"]),
    (
        "load",
        &[
            "aot",
            "bindings",
            "call",
            "diagnostic",
            "egress",
            "engine",
            "grant",
            "host_functions",
            "limits",
            "link",
            "load_error",
            "manifest",
            "plugin",
            "sanitize",
            "state",
        ],
    ),
    ("load_error", &["diagnostic", "error", "manifest"]),
    ("manifest", &["sanitize"]),
    ("notifier", &["bindings", "call", "convert", "error", "load", "load_error", "manifest", "plugin", "sanitize", "state"]),
    ("plugin", &["call", "error", "host_functions", "limits", "manifest", "state", "threads"]),
    ("policy", &["bindings", "call", "convert", "error", "load", "load_error", "manifest", "plugin", "sanitize", "state"]),
    ("sanitize", &[]),
    ("state", &["egress", "engine", "error", "host_functions", "limits", "threads"]),
    (
        "step_type",
        &[
            "bindings",
            "call",
            "convert",
            "diagnostic",
            "error",
            "host_functions",
            "load",
            "load_error",
            "manifest",
            "plugin",
            "sanitize",
            "state",
        ],
    ),
    ("threads", &[]),
];

const HOST: Layers = &[
    ("access", &[]),
    ("admit", &["app", "clock", "plugins", "store"]),
    (
        "api",
        &[
            "access",
            "clock",
            "disk",
            "forge",
            "guard",
            "http_state",
            "log",
            "notify",
            "session",
            "store",
            "urls",
            "user_action",
            "web",
        ],
    ),
    ("app", &["config", "disk", "engine", "forge", "log", "notify", "plugins", "seal", "source", "store", "telemetry", "worker"]),
    ("change_set", &["app", "resolve", "source"]),
    ("cli", &["api", "config", "plugins", "seal", "server", "store", "telemetry", "urls", "web"]),
    ("clock", &[]),
    ("config", &[]),
    ("disk", &["config"]),
    ("engine", &["clock", "fail_point"]),
    ("fail_point", &[]),
    ("flow", &["app", "clock", "notify", "prepare", "resolve", "run", "store", "worker"]),
    ("forge", &["seal", "source", "store", "webhook"]),
    ("guard", &["access", "api", "disk", "http_state", "session", "urls", "web"]),
    ("http_server", &[]),
    ("http_state", &["clock", "config", "engine", "forge", "log", "seal", "store", "telemetry", "worker"]),
    ("log", &[]),
    ("notify", &["app", "clock", "plugins", "store", "urls", "worker"]),
    ("plugins", &["clock", "config", "seal", "store"]),
    ("prepare", &["admit", "app", "change_set", "clock", "plugins", "resolve", "store", "worker"]),
    ("queues", &["app", "clock", "flow", "notify", "retention", "run", "store", "worker"]),
    ("reevaluate", &["app", "change_set", "clock", "prepare", "store", "worker"]),
    ("resolve", &["app", "clock", "source", "store", "worker"]),
    ("retention", &["app", "clock"]),
    (
        "run",
        &[
            "app",
            "change_set",
            "clock",
            "disk",
            "engine",
            "log",
            "prepare",
            "reevaluate",
            "resolve",
            "source",
            "store",
            "urls",
            "worker",
        ],
    ),
    ("seal", &[]),
    (
        "server",
        &[
            "api",
            "app",
            "clock",
            "config",
            "engine",
            "forge",
            "http_server",
            "http_state",
            "queues",
            "seal",
            "shutdown",
            "web",
            "webhook",
        ],
    ),
    ("session", &["api", "config", "http_state", "store"]),
    ("shutdown", &[]),
    ("source", &["disk"]),
    ("store", &["fail_point", "seal"]),
    ("telemetry", &["webhook"]),
    ("urls", &[]),
    ("user_action", &["api", "http_state", "store"]),
    ("web", &["api", "config", "disk", "http_state", "log", "notify", "session", "store", "urls", "user_action"]),
    ("webhook", &["api", "seal", "store"]),
    ("worker", &["store"]),
];

/// Folders whose files must not use each other in a circle either.
const ACYCLIC_FOLDERS: &[(&str, &[&str])] = &[
    ("host/core/src", &["pipeline"]),
    ("host/core/src", &["policy"]),
    ("host/src", &["api"]),
    ("host/src", &["engine"]),
    ("host/src", &["engine", "docker"]),
    ("host/src", &["run"]),
    ("host/src", &["store"]),
    ("host/src", &["web"]),
    ("host/wasm/src", &["egress"]),
    ("host/wasm/src", &["host_functions"]),
];

/// Uses that do not count towards a cycle, because they cannot be avoided: `bindgen!` names the types that stand for WIT
/// resources.
const FORCED: &[(&str, &str)] = &[("bindings", "host_functions")];

#[test]
fn core_modules_keep_to_their_layers() {
    check("host/core/src", CORE);
}

#[test]
fn wasm_modules_keep_to_their_layers() {
    check("host/wasm/src", WASM);
}

#[test]
fn host_modules_keep_to_their_layers() {
    check("host/src", HOST);
}

#[test]
fn files_in_a_folder_do_not_use_each_other_in_a_circle() {
    let mut cycles = Vec::new();
    for (src, folder) in ACYCLIC_FOLDERS {
        let edges = read(src).edges(folder);
        assert!(!edges.is_empty(), "{src}/{} has no modules: update ACYCLIC_FOLDERS", folder.join("/"));
        cycles.extend(find_cycle(&edges).map(|cycle| format!("{src}/{}: {}", folder.join("/"), cycle.join(" -> "))));
    }
    assert!(cycles.is_empty(), "{cycles:#?}");
}

fn read(src: &str) -> ModuleGraph {
    ModuleGraph::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(src))
}

fn check(src: &str, layers: Layers) {
    let edges = read(src).edges(&[]);
    let problems = problems(&edges, layers);
    assert!(
        problems.is_empty(),
        "{src}: {problems:#?}\nIf the change is intended, these rows belong into tests/it/layers.rs:\n{}",
        rows(&edges)
    );
}

/// Differences between the modules and their table, and a cycle.
fn problems(edges: &Edges, layers: Layers) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = layers.iter().copied().collect();
    let mut problems = Vec::new();
    for (module, used) in edges {
        let Some(row) = allowed.get(module.as_str()) else {
            problems.push(format!("`{module}` has no row"));
            continue;
        };
        let extra = used.iter().filter(|name| !row.contains(&name.as_str()));
        problems.extend(extra.map(|name| format!("`{module}` uses `{name}`, which its row does not allow")));
        let unused = row.iter().filter(|name| !used.contains(**name));
        problems.extend(unused.map(|name| format!("`{module}` no longer uses `{name}`, which its row allows")));
    }
    problems.extend(allowed.keys().filter(|name| !edges.contains_key(**name)).map(|name| format!("`{name}` is not a module")));
    let mut avoidable = edges.clone();
    for (from, to) in FORCED {
        if let Some(used) = avoidable.get_mut(*from) {
            used.remove(*to);
        }
    }
    problems.extend(find_cycle(&avoidable).map(|cycle| format!("a cycle: {}", cycle.join(" -> "))));
    problems
}

/// The edges as rows of a table.
fn rows(edges: &Edges) -> String {
    let row = |(module, used): (&String, &std::collections::BTreeSet<String>)| {
        let used: Vec<String> = used.iter().map(|name| format!("\"{name}\"")).collect();
        format!("    (\"{module}\", &[{}]),\n", used.join(", "))
    };
    edges.iter().map(row).collect()
}

/// A crate of these files.
fn graph(files: &[(&str, &str)]) -> ModuleGraph {
    let split = |path: &str| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    ModuleGraph::of(&files.iter().map(|(module, text)| (split(module), (*text).to_owned())).collect())
}

#[test]
fn a_cycle_is_found() {
    let tree = graph(&[
        ("", "mod a; mod b; mod c;"),
        ("a", "use crate::b::B;"),
        ("b", "use std::fmt; fn f() { crate::c::g() }"),
        ("c", "use super::a;"),
    ]);
    let cycle = find_cycle(&tree.edges(&[])).unwrap();
    assert_eq!(cycle, ["a", "b", "c", "a"]);
    assert_eq!(problems(&tree.edges(&[]), &[("a", &["b"]), ("b", &["c"]), ("c", &["a"])]), ["a cycle: a -> b -> c -> a"]);
}

#[test]
fn an_edge_that_is_not_in_the_table_is_found() {
    let tree = graph(&[("a", "use crate::{b, c::{self, C}};"), ("b", ""), ("c", "")]);
    assert_eq!(problems(&tree.edges(&[]), &[("a", &["b", "c"]), ("b", &[]), ("c", &[])]), [""; 0]);
    let found = problems(&tree.edges(&[]), &[("a", &["b", "d"]), ("b", &[]), ("d", &[])]);
    let expected = [
        "`a` uses `c`, which its row does not allow",
        "`a` no longer uses `d`, which its row allows",
        "`c` has no row",
        "`d` is not a module",
    ];
    assert_eq!(found, expected);
}

#[test]
fn unit_tests_comments_and_text_are_not_uses() {
    let a = r##"
        //! `crate::b` in a comment, /* crate::b */
        const TEXT: &str = "crate::b"; const RAW: &str = r#"use crate::b;"#; const QUOTE: char = '"'; const OTHER: &str = "crate::b";
        fn f<'a>(text: &'a str) -> impl Iterator<Item = &'a str> + use<'a> { text.lines() }
        #[cfg(test)]
        use crate::b::{B, C};
        #[cfg(test)]
        mod helpers;
        #[cfg(test)]
        mod tests { use super::*; use crate::b; fn t() { { crate::b::f() } } }
        use crate::c;
    "##;
    let tree = graph(&[("a", a), ("a::helpers", "use crate::b;"), ("b", ""), ("c", "")]);
    assert_eq!(rows(&tree.edges(&[])), "    (\"a\", &[\"c\"]),\n    (\"b\", &[]),\n    (\"c\", &[]),\n");
}

#[test]
fn files_of_a_folder_are_resolved_through_its_imports() {
    let tree = graph(&[
        ("run", "mod step; mod round; mod log; pub use step::Step; use round::Round as Next; use crate::store::Store;"),
        ("run::step", "use super::Next; use super::log::{self, Line};"),
        ("run::round", "mod inner { use super::super::Step; }"),
        ("run::log", "use super::Store;"),
        ("store", ""),
    ]);
    let edges = tree.edges(&["run"]);
    assert_eq!(rows(&edges), "    (\"log\", &[]),\n    (\"round\", &[\"step\"]),\n    (\"step\", &[\"log\", \"round\"]),\n");
    assert_eq!(find_cycle(&edges).unwrap(), ["round", "step", "round"]);
    assert_eq!(rows(&tree.edges(&[])), "    (\"run\", &[\"store\"]),\n    (\"store\", &[]),\n");
}
