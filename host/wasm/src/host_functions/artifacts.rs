//! `beespace:plugin/artifacts`. Builds have no artifacts yet, so the list is empty and no name is found.

use wasmtime::component::Resource;

use crate::bindings::step::beespace::plugin::{artifacts, exec_types};
use crate::resources::HostArtifact;
use crate::state::State;

impl exec_types::Host for State {}

impl artifacts::Host for State {
    async fn list_names(&mut self, _prefix: String) -> wasmtime::Result<Result<Vec<String>, artifacts::ArtifactError>> {
        Ok(Ok(Vec::new()))
    }

    async fn open(&mut self, _name: String) -> wasmtime::Result<Result<Resource<HostArtifact>, artifacts::ArtifactError>> {
        Ok(Err(artifacts::ArtifactError::NotFound))
    }
}

impl artifacts::HostArtifact for State {
    async fn info(&mut self, artifact: Resource<HostArtifact>) -> wasmtime::Result<artifacts::Info> {
        match *self.table.get(&artifact)? {}
    }

    async fn read(
        &mut self,
        artifact: Resource<HostArtifact>,
        _offset: u64,
        _length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, artifacts::ArtifactError>> {
        match *self.table.get(&artifact)? {}
    }

    async fn drop(&mut self, artifact: Resource<HostArtifact>) -> wasmtime::Result<()> {
        match self.table.delete(artifact)? {}
    }
}
