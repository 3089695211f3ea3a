//! Capabilities as imports: checks which imports a binding may have, and builds a linker with exactly those.

use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::{clocks::monotonic_clock, io};

use crate::bindings::{notifier::beespace::plugin as notifier, shared, step::beespace::plugin as step};
use crate::grant::{Grants, NeededGrant};
use crate::load_error::LoadFailure;
use crate::manifest::Kind;
use crate::sanitize::sanitize;
use crate::state::State;

type WithState = HasSelf<State>;
type WithTable = HasSelf<ResourceTable>;

/// The grants that a plugin with these imports needs and does not have, each once.
///
/// # Errors
/// [`LoadFailure`], which names an interface that plugins of this kind cannot have.
pub(crate) fn missing_grants(kind: Kind, grants: &Grants, imports: &[String]) -> Result<Vec<NeededGrant>, LoadFailure> {
    let mut missing = Vec::new();
    for import in imports {
        if let Some(grant) = needed_grant(kind, import)?
            && !is_granted(grants, grant)
            && !missing.contains(&grant)
        {
            missing.push(grant);
        }
    }
    Ok(missing)
}

/// The grant that an import needs; none if every plugin of this kind may have it.
fn needed_grant(kind: Kind, import: &str) -> Result<Option<NeededGrant>, LoadFailure> {
    let interface = import.split('@').next().unwrap_or(import);
    Ok(match (kind, interface) {
        (_, "beespace:plugin/types" | "beespace:plugin/log" | "beespace:plugin/config")
        | (Kind::Step, "beespace:plugin/exec-types" | "beespace:plugin/source" | "beespace:plugin/artifacts") => None,
        (Kind::Notifier, "beespace:plugin/kv") => Some(NeededGrant::Kv),
        (Kind::Notifier, "beespace:plugin/secrets") => Some(NeededGrant::Secrets),
        (Kind::Notifier, "beespace:plugin/secrets-reveal") => Some(NeededGrant::SecretsReveal),
        (
            Kind::Notifier,
            "wasi:http/types"
            | "wasi:http/outgoing-handler"
            | "wasi:io/error"
            | "wasi:io/poll"
            | "wasi:io/streams"
            | "wasi:clocks/monotonic-clock",
        ) => Some(NeededGrant::Hosts),
        _ => return Err(not_linkable(kind, interface, import)),
    })
}

fn is_granted(grants: &Grants, needed: NeededGrant) -> bool {
    match needed {
        NeededGrant::Hosts => !grants.egress.is_empty(),
        NeededGrant::Secrets => !grants.secrets.is_empty(),
        NeededGrant::SecretsReveal => grants.secrets_reveal,
        NeededGrant::Kv => grants.kv,
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
        let missing = missing_grants(Kind::Notifier, &Grants::default(), &imports).unwrap();
        assert_eq!(missing, [NeededGrant::Kv, NeededGrant::Secrets, NeededGrant::Hosts]);
        assert_eq!(
            LoadFailure::MissingGrants(missing).to_string(),
            "the plugin needs `grants.kv` (to store data between calls) and `grants.secrets` (to use secrets) and `grants.hosts` \
             (to send requests): set grants = { kv = true, secrets = [\"NAME\"], hosts = [\"https://HOST\"] }"
        );
        let kv = Grants { kv: true, ..Grants::default() };
        assert_eq!(missing_grants(Kind::Notifier, &kv, &imports[..2]).unwrap(), [NeededGrant::Secrets]);
    }
}
