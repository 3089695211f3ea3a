//! The layers: which module may use which. A new use needs an entry here, so that a reviewer sees it. A cycle is never allowed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::module_graph::{Edges, ModuleGraph, find_cycle};

/// Modules, each with the modules that it uses.
type Layers = &'static [(&'static str, &'static [&'static str])];

const CORE: Layers = &[
    ("baseline_policy", &["cycle_detection", "image_ref", "pipeline", "plan", "policy", "reason", "trust", "units"]),
    (
        "build",
        &[
            "diagnostic",
            "event",
            "exit",
            "ids",
            "pipeline",
            "plan",
            "policy",
            "reason",
            "reason_code",
            "schedule",
            "status",
            "time",
            "trust",
        ],
    ),
    ("build_admission", &["build", "digest", "event", "ids", "policy", "trust"]),
    ("change_event", &["ids", "notice", "status"]),
    ("clock_check", &["time"]),
    ("cycle_detection", &[]),
    ("diagnostic", &[]),
    ("digest", &[]),
    ("environment", &["build", "event", "ids", "pipeline", "plan", "status", "time"]),
    ("error_cause", &[]),
    ("event", &["git_ref", "ids"]),
    ("exit", &["reason", "reason_code", "status", "units"]),
    ("git_ref", &[]),
    ("gogs", &["ids", "reason", "reason_code", "verify"]),
    ("graph", &["build", "ids", "pipeline", "reason", "reason_code", "status"]),
    ("ids", &[]),
    ("image_ref", &[]),
    ("mask", &[]),
    ("metadata_service", &[]),
    ("notice", &["build", "digest", "event", "ids", "reason", "time"]),
    ("notifier_refusals", &["ids"]),
    ("output", &[]),
    (
        "pipeline",
        &[
            "cycle_detection",
            "diagnostic",
            "digest",
            "event",
            "exit",
            "git_ref",
            "ids",
            "image_ref",
            "policy",
            "reason",
            "reason_code",
            "sanitize",
            "schedule",
            "status",
            "units",
        ],
    ),
    ("plan", &["digest", "image_ref", "pipeline", "policy", "script", "units"]),
    ("plugin_context", &["build", "digest", "event", "ids", "pipeline", "time", "trust"]),
    ("policy", &["digest", "ids", "reason", "time"]),
    ("pull_request_head", &["event", "ids"]),
    ("reason", &["reason_code"]),
    ("reason_code", &[]),
    ("rule_set", &["digest", "plan", "policy"]),
    ("sanitize", &[]),
    ("schedule", &["event", "time"]),
    ("script", &[]),
    ("stage_graph", &["build", "ids", "pipeline", "reason", "reason_code", "status", "time", "user_action"]),
    ("status", &[]),
    ("step_type", &["plan", "policy", "status"]),
    ("time", &[]),
    ("trigger", &["event", "git_ref", "gogs", "ids", "reason", "reason_code", "verify"]),
    ("trust", &["event"]),
    ("units", &[]),
    ("user_action", &["build", "digest", "ids", "policy", "reason", "reason_code", "status", "time"]),
    ("verify", &["digest"]),
];

const WASM: Layers = &[
    ("bindings", &["resources"]),
    ("call", &["engine", "error", "manifest", "sanitize", "slots", "state", "threads"]),
    ("call_log", &["error"]),
    ("compile_error", &["load_error", "sanitize"]),
    ("compiled_cache", &[]),
    ("convert", &["bindings", "error", "sanitize"]),
    ("converter", &["bindings", "call", "convert", "diagnostic", "error", "load", "load_error", "manifest", "plugin", "state"]),
    ("diagnostic", &["bindings", "convert", "sanitize", "schema_errors"]),
    ("egress", &["grant", "ports"]),
    ("engine", &[]),
    ("error", &["limits", "sanitize"]),
    ("grant", &[]),
    ("host_functions", &["bindings", "call_log", "ports", "resources", "sanitize", "state"]),
    ("limits", &[]),
    ("link", &["bindings", "grant", "load_error", "manifest", "sanitize", "state"]),
    (
        "load",
        &[
            "bindings",
            "call",
            "compile_error",
            "compiled_cache",
            "diagnostic",
            "egress",
            "engine",
            "grant",
            "limits",
            "link",
            "load_error",
            "manifest",
            "plugin",
            "ports",
            "sanitize",
            "setting_grants",
            "slots",
            "state",
        ],
    ),
    ("load_error", &["diagnostic", "error", "grant", "manifest"]),
    ("manifest", &["sanitize"]),
    ("notifier", &["bindings", "call", "convert", "error", "load", "load_error", "manifest", "plugin", "sanitize", "state"]),
    ("plugin", &["call", "error", "limits", "manifest", "ports", "slots", "state", "threads"]),
    (
        "policy",
        &["bindings", "call", "convert", "error", "load", "load_error", "manifest", "plugin", "sanitize", "slots", "state"],
    ),
    ("ports", &[]),
    ("resources", &["ports"]),
    ("sanitize", &[]),
    ("schema_errors", &[]),
    ("setting_grants", &["diagnostic", "egress", "grant", "sanitize"]),
    ("slots", &["manifest"]),
    ("state", &["call_log", "egress", "engine", "error", "limits", "ports", "threads"]),
    (
        "step_type",
        &[
            "bindings",
            "call",
            "convert",
            "diagnostic",
            "error",
            "load",
            "load_error",
            "manifest",
            "plugin",
            "ports",
            "sanitize",
            "slots",
            "state",
        ],
    ),
    ("threads", &[]),
];

const HOST: Layers = &[
    ("access", &["principal", "store"]),
    ("admin_token", &[]),
    ("ansi", &["html"]),
    (
        "api",
        &[
            "access",
            "app",
            "authorization",
            "clock",
            "config",
            "disk",
            "http_problem",
            "log",
            "notify",
            "principal",
            "store",
            "urls",
            "user_action",
            "view",
        ],
    ),
    (
        "app",
        &[
            "admin_token",
            "clock",
            "config",
            "disk",
            "encryption",
            "engine",
            "forge",
            "log",
            "plugins",
            "source",
            "store",
            "telemetry",
            "urls",
            "worker",
        ],
    ),
    ("authorization", &["access", "app", "http_problem", "principal", "store"]),
    ("background", &["app", "engine_cleanup", "metrics_collector", "notify", "prewarm", "queues", "retention", "start_check"]),
    (
        "cli",
        &[
            "ansi",
            "api",
            "clock",
            "config",
            "encryption",
            "http_problem",
            "plugins",
            "server",
            "store",
            "telemetry",
            "urls",
            "view",
        ],
    ),
    ("clock", &[]),
    ("config", &[]),
    ("disk", &["config"]),
    ("encryption", &[]),
    ("engine", &["clock", "fail_point"]),
    ("engine_cleanup", &["app", "clock", "store"]),
    ("fail_point", &[]),
    ("flow", &["app", "clock", "notify", "prepare", "repository_identity", "run", "source", "store", "worker"]),
    ("forge", &["encryption", "source", "store", "webhook_secret"]),
    ("html", &[]),
    ("http_problem", &["forge", "log", "store", "user_action"]),
    ("http_server", &[]),
    ("log", &[]),
    ("metrics_collector", &["app", "store"]),
    ("middleware", &["access", "app", "authorization", "disk", "http_problem", "principal", "session", "web"]),
    ("mirror_cleanup", &["app", "forge", "source", "store"]),
    ("notify", &["app", "clock", "plugins", "store", "urls", "worker"]),
    ("planning", &["app", "clock", "plugins", "source", "store"]),
    ("plugins", &["clock", "config", "encryption", "store"]),
    ("prepare", &["app", "clock", "planning", "repository_identity", "source", "store", "worker"]),
    ("prewarm", &["app", "engine"]),
    ("principal", &[]),
    ("queues", &["app", "clock", "flow", "notify", "plugins", "run", "store", "worker"]),
    ("repository_identity", &["app", "clock", "forge", "source", "store", "worker"]),
    ("retention", &["app", "clock", "mirror_cleanup", "store"]),
    ("router", &["api", "app", "config", "middleware", "urls", "web"]),
    ("run", &["app", "clock", "disk", "encryption", "engine", "log", "planning", "plugins", "source", "store", "urls", "worker"]),
    (
        "server",
        &["app", "background", "clock", "config", "encryption", "http_server", "router", "shutdown", "webhook", "webhook_secret"],
    ),
    ("session", &["app", "clock", "config", "http_problem", "principal", "store", "urls"]),
    ("shutdown", &[]),
    ("source", &["disk"]),
    ("start_check", &["app"]),
    ("store", &["encryption", "fail_point", "urls"]),
    ("telemetry", &[]),
    ("urls", &[]),
    ("user_action", &["app", "clock", "principal", "store"]),
    ("view", &["ansi", "html", "log", "store"]),
    (
        "web",
        &[
            "ansi",
            "app",
            "authorization",
            "clock",
            "disk",
            "html",
            "http_problem",
            "log",
            "notify",
            "principal",
            "session",
            "store",
            "urls",
            "user_action",
            "view",
        ],
    ),
    ("webhook", &["encryption", "http_problem", "store", "telemetry", "webhook_secret"]),
    ("webhook_secret", &[]),
    ("worker", &["store"]),
];

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
    for src in ["host/core/src", "host/wasm/src", "host/src"] {
        let graph = read(src);
        let folders = graph.folders();
        assert!(folders.len() > 3, "{src}: {folders:?}");
        for folder in folders {
            let edges = graph.edges(&folder);
            cycles.extend(find_cycle(&edges).map(|cycle| format!("{src}/{}: {}", folder.join("/"), cycle.join(" -> "))));
        }
    }
    assert!(cycles.is_empty(), "{cycles:#?}");
}

#[test]
fn the_architecture_page_names_every_module_of_the_host() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/ARCHITECTURE.md")).unwrap();
    let layers = page.split("## Layers").nth(1).unwrap().split("\n## ").next().unwrap();
    let missing: Vec<&str> =
        HOST.iter().map(|(module, _)| *module).filter(|module| !layers.contains(&format!("`{module}`"))).collect();
    assert!(missing.is_empty(), "the section Layers of host/ARCHITECTURE.md does not name {missing:?}");
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
    problems.extend(find_cycle(edges).map(|cycle| format!("a cycle: {}", cycle.join(" -> "))));
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
        const TEXT: &str = "crate::b"; const RAW: &str = r#"use crate::b;"#;
        const QUOTE: char = '"'; const OTHER: &str = "crate::b";
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
    assert_eq!(tree.folders(), [["run"]]);
    let edges = tree.edges(&["run"]);
    assert_eq!(rows(&edges), "    (\"log\", &[]),\n    (\"round\", &[\"step\"]),\n    (\"step\", &[\"log\", \"round\"]),\n");
    assert_eq!(find_cycle(&edges).unwrap(), ["round", "step", "round"]);
    assert_eq!(rows(&tree.edges(&[])), "    (\"run\", &[\"store\"]),\n    (\"store\", &[]),\n");
}
