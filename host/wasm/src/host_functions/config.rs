//! `beespace:plugin/config`: the settings of the binding. The interface `types` has no functions, but needs an implementation.

use crate::bindings::shared::{config, types};
use crate::state::State;

impl types::Host for State {}

impl config::Host for State {
    async fn get(&mut self) -> wasmtime::Result<String> {
        Ok(self.settings.to_string())
    }
}
