//! Why a component does not compile, in words. The compiler names the proposal of WebAssembly that is switched off, but not that
//! this is on purpose, nor how to build without it.

use crate::load_error::LoadFailure;
use crate::sanitize::sanitize;

/// A proposal that plugins cannot use: texts of the compiler, the name for people, and how to build without it.
struct DisabledProposal {
    texts: &'static [&'static str],
    name: &'static str,
    help: &'static str,
}

const DISABLED: &[DisabledProposal] = &[
    DisabledProposal {
        texts: &["tail calls support is not enabled"],
        name: "tail calls",
        help: "in Rust remove `-C target-feature=+tail-call`, in C `-mtail-call`",
    },
    DisabledProposal {
        texts: &["relaxed SIMD support is not enabled"],
        name: "relaxed SIMD instructions",
        help: "in Rust remove `-C target-feature=+relaxed-simd`, in C `-mrelaxed-simd`",
    },
    DisabledProposal {
        texts: &["wide arithmetic support is not enabled"],
        name: "wide arithmetic",
        help: "in Rust remove `-C target-feature=+wide-arithmetic`, in C `-mwide-arithmetic`",
    },
    DisabledProposal {
        texts: &["threads support is not enabled", "threads must be enabled", "shared-everything-threads"],
        name: "threads or atomic instructions",
        help: "in Rust remove `-C target-feature=+atomics`, in C `-pthread`",
    },
    DisabledProposal {
        texts: &["exceptions support is not enabled", "exceptions proposal not enabled", "legacy exceptions support"],
        name: "exceptions",
        help: "in Rust build with `panic = \"abort\"`, in C++ with `-fno-exceptions`",
    },
    DisabledProposal {
        texts: &["memory64 must be enabled", "64-bit memories require"],
        name: "64-bit memories",
        help: "build it for `wasm32`, not for `wasm64`",
    },
    DisabledProposal {
        texts: &[
            "function references required",
            "gc proposal must be enabled",
            "without the gc feature",
            "gc support is not enabled",
            "function references support",
        ],
        name: "garbage-collected types or typed function references",
        help: "languages that need them cannot be used for plugins",
    },
    DisabledProposal {
        texts: &["requires the component model async feature"],
        name: "the asynchronous component model",
        help: "build it for the synchronous one: `componentize-qjs` has the option `--sync`",
    },
];

/// The failure for an error of the compiler.
pub(crate) fn compile_failure(error: &wasmtime::Error) -> LoadFailure {
    let text = format!("{error:#}");
    match DISABLED.iter().find(|disabled| disabled.texts.iter().any(|mark| text.contains(mark))) {
        Some(DisabledProposal { name, help, .. }) => LoadFailure::Unsupported { name, help },
        None => LoadFailure::Compile(sanitize(&text, 1 << 10)),
    }
}
