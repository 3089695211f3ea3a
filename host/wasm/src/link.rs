//! Capabilities as imports: checks which imports a binding may have, and builds a linker with exactly those.

use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::{clocks::monotonic_clock, io};

use crate::bindings::{notifier::beespace::plugin as notifier, shared, step::beespace::plugin as step};
use crate::grant::Grants;
use crate::load_error::LoadFailure;
use crate::manifest::Kind;
use crate::sanitize::sanitize;
use crate::state::State;

type WithState = HasSelf<State>;
type WithTable = HasSelf<ResourceTable>;

/// Checks that a plugin of this kind may have these imports with these grants.
///
/// # Errors
/// [`LoadFailure`], which names every grant that is missing, or an interface that cannot be granted.
pub(crate) fn check_imports(kind: Kind, grants: &Grants, imports: &[String]) -> Result<(), LoadFailure> {
    let mut missing: Vec<(String, &'static str)> = Vec::new();
    for import in imports {
        match check_import(kind, grants, import) {
            Ok(()) => {}
            // Several interfaces may belong to one grant.
            Err(LoadFailure::NotGranted { import, help }) if missing.iter().all(|(_, other)| *other != help) => {
                missing.push((import, help));
            }
            Err(LoadFailure::NotGranted { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    match missing.len() {
        0 | 1 => missing.pop().map_or(Ok(()), |(import, help)| Err(LoadFailure::NotGranted { import, help })),
        _ => Err(LoadFailure::SeveralNotGranted(missing)),
    }
}

fn check_import(kind: Kind, grants: &Grants, import: &str) -> Result<(), LoadFailure> {
    let interface = import.split('@').next().unwrap_or(import);
    let granted = match (kind, interface) {
        (_, "beespace:plugin/types" | "beespace:plugin/log" | "beespace:plugin/config") => true,
        (Kind::Step, "beespace:plugin/exec-types" | "beespace:plugin/source" | "beespace:plugin/artifacts") => true,
        (Kind::Notifier, "beespace:plugin/kv") => grants.kv,
        (Kind::Notifier, "beespace:plugin/secrets") => !grants.secrets.is_empty(),
        (Kind::Notifier, "beespace:plugin/secrets-reveal") => grants.secrets_reveal,
        (Kind::Notifier, "wasi:http/types" | "wasi:http/outgoing-handler") => !grants.egress.is_empty(),
        (Kind::Notifier, "wasi:io/error" | "wasi:io/poll" | "wasi:io/streams" | "wasi:clocks/monotonic-clock") => {
            !grants.egress.is_empty()
        }
        _ => return Err(not_linkable(kind, interface, import)),
    };
    if granted { Ok(()) } else { Err(LoadFailure::NotGranted { import: sanitize(import, 200), help: grant_hint(interface) }) }
}

/// Describes how to grant an interface.
fn grant_hint(interface: &str) -> &'static str {
    match interface {
        "beespace:plugin/secrets" => "to allow it, add `secrets = [\"NAME\"]` to the grants of the binding",
        "beespace:plugin/kv" => "to allow it, add `kv = true` to the grants of the binding",
        "beespace:plugin/secrets-reveal" => "the configuration cannot grant it yet",
        _ => "to allow it, add `hosts = [\"https://HOST\"]` to the grants of the binding",
    }
}

fn not_linkable(kind: Kind, interface: &str, import: &str) -> LoadFailure {
    let import = sanitize(import, 200);
    if interface.starts_with("wasi:") {
        LoadFailure::Wasi { import, kind }
    } else if interface.starts_with("beespace:plugin/") {
        LoadFailure::NotForKind { import, kind }
    } else {
        LoadFailure::Incompatible(format!("this server has no interface {import}"))
    }
}

/// Builds a linker with exactly what `kind` and `grants` allow. Interfaces that only define types are always linked, because they
/// grant nothing.
pub(crate) fn linker(engine: &wasmtime::Engine, kind: Kind, grants: &Grants) -> wasmtime::Result<Linker<State>> {
    let mut linker = pure_linker(engine)?;
    shared::config::add_to_linker::<_, WithState>(&mut linker, |state| state)?;
    match kind {
        Kind::Policy | Kind::Converter => {}
        Kind::Step => {
            step::exec_types::add_to_linker::<_, WithState>(&mut linker, |state| state)?;
            step::source::add_to_linker::<_, WithState>(&mut linker, |state| state)?;
            step::artifacts::add_to_linker::<_, WithState>(&mut linker, |state| state)?;
        }
        Kind::Notifier => add_for_notifier(&mut linker, grants)?,
    }
    Ok(linker)
}

/// Builds the linker for validating settings: it has the log, and nothing on which the result could depend.
pub(crate) fn pure_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    shared::types::add_to_linker::<_, WithState>(&mut linker, |state| state)?;
    shared::log::add_to_linker::<_, WithState>(&mut linker, |state| state)?;
    Ok(linker)
}

fn add_for_notifier(linker: &mut Linker<State>, grants: &Grants) -> wasmtime::Result<()> {
    if grants.kv {
        notifier::kv::add_to_linker::<_, WithState>(linker, |state| state)?;
    }
    if !grants.secrets.is_empty() {
        notifier::secrets::add_to_linker::<_, WithState>(linker, |state| state)?;
    }
    if grants.secrets_reveal {
        notifier::secrets_reveal::add_to_linker::<_, WithState>(linker, |state| state)?;
    }
    if !grants.egress.is_empty() {
        // The interfaces are added one by one, because wasmtime's bundle would add wall clock, randomness and standard output.
        io::error::add_to_linker::<_, WithTable>(linker, |state| &mut state.table)?;
        io::poll::add_to_linker::<_, WithTable>(linker, |state| &mut state.table)?;
        io::streams::add_to_linker::<_, WithTable>(linker, |state| &mut state.table)?;
        monotonic_clock::add_to_linker::<_, WasiClocks>(linker, State::clocks)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_grant_is_reported_and_each_once() {
        let imports = ["kv", "secrets", "log"].map(|name| format!("beespace:plugin/{name}@0.1.0"));
        let http = ["wasi:http/types@0.2.0", "wasi:io/poll@0.2.0"].map(str::to_owned);
        let imports: Vec<String> = imports.into_iter().chain(http).collect();
        let all = check_imports(Kind::Notifier, &Grants::default(), &imports).unwrap_err().to_string();
        for grant in ["kv = true", "secrets = [", "hosts = ["] {
            assert_eq!(all.matches(grant).count(), 1, "{grant}: {all}");
        }
        let kv = Grants { kv: true, ..Grants::default() };
        let rest = check_imports(Kind::Notifier, &kv, &imports[..2]).unwrap_err();
        assert!(matches!(&rest, LoadFailure::NotGranted { import, .. } if import.contains("secrets")), "{rest}");
    }
}
