//! The output of `bindgen!` for `wit/` and nothing else. The shared interfaces are generated once, with the policy world.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, reason = "generated code")]
#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "generated code")]
#![allow(clippy::indexing_slicing, clippy::todo, reason = "generated code")]

/// The world `policy-plugin` and the interfaces that all worlds share.
pub mod policy {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "policy-plugin",
        imports: { default: async | trappable },
        exports: { default: async },
    });
}

/// The world `step-plugin`.
pub mod step {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "step-plugin",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "beespace:plugin/types": crate::bindings::policy::beespace::plugin::types,
            "beespace:plugin/log": crate::bindings::policy::beespace::plugin::log,
            "beespace:plugin/config": crate::bindings::policy::beespace::plugin::config,
            "beespace:plugin/artifacts.artifact": crate::resources::HostArtifact,
        },
        require_store_data_send: true,
    });
}

/// The world `notifier-plugin`.
pub mod notifier {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "notifier-plugin",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "beespace:plugin/types": crate::bindings::policy::beespace::plugin::types,
            "beespace:plugin/log": crate::bindings::policy::beespace::plugin::log,
            "beespace:plugin/config": crate::bindings::policy::beespace::plugin::config,
            "beespace:plugin/secrets.secret": crate::resources::HostSecret,
            "wasi:http": wasmtime_wasi_http::p2::bindings::http,
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
        },
        require_store_data_send: true,
    });
}

/// The world `converter-plugin`.
pub mod converter {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "converter-plugin",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "beespace:plugin/types": crate::bindings::policy::beespace::plugin::types,
            "beespace:plugin/log": crate::bindings::policy::beespace::plugin::log,
            "beespace:plugin/config": crate::bindings::policy::beespace::plugin::config,
        },
    });
}

pub use policy::beespace::plugin as shared;

/// The exports that plugins of every kind share.
pub mod lifecycle {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "package beespace:host; world any-plugin { export beespace:plugin/lifecycle@0.1.0; }",
        world: "beespace:host/any-plugin",
        imports: { default: async | trappable },
        exports: { default: async },
        with: { "beespace:plugin/types": crate::bindings::policy::beespace::plugin::types },
    });
}
