//! Images: the gate's, which we make ourselves, and whether one is there.

use std::sync::LazyLock;

use bollard::body_full;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions};
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::Docker;
use super::client::optional;
use super::names::label_filter;
use super::timeouts::CallKind;
use crate::engine::{EngineError, PAUSE_PROGRAM};

/// The gate inside of its image.
pub(super) const PAUSE_PATH: &str = "/beespace-gate";

/// The beginning of the gate's digest, which its image is called by.
static PAUSE_TAG: LazyLock<String> = LazyLock::new(|| {
    let mut digest = hex::encode(Sha256::digest(PAUSE_PROGRAM));
    digest.truncate(16);
    digest
});

impl Docker {
    /// The name of the gate's image.
    pub(super) fn pause_image(&self) -> String {
        self.names.pause_image(&PAUSE_TAG)
    }

    /// Makes the gate's image where it is not there, and drops those of other versions of ours.
    pub(super) async fn import_pause_image(&self) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let image = self.pause_image();
        let (repository, tag) = image.split_once(':').unwrap_or((&image, "latest"));
        let mut changes = vec![format!("ENTRYPOINT [\"{PAUSE_PATH}\"]")];
        changes.extend(self.names.instance_labels().iter().map(|(key, value)| format!("LABEL {key}={value}")));
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).changes(changes).build();
        let layer = pause_layer()?;
        let import = async {
            let mut steps = std::pin::pin!(api.create_image(Some(options), Some(body_full(layer.into())), None));
            while let Some(step) = steps.next().await {
                step?;
            }
            Ok(())
        };
        self.client.call("import the gate's image", CallKind::Slow, import).await?;
        self.remove_old_pause_images(&image).await
    }

    async fn remove_old_pause_images(&self, current: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let ours = ListImagesOptionsBuilder::new().filters(&label_filter(&self.names.instance_labels())).build();
        for image in self.client.call("list images", CallKind::Quick, api.list_images(Some(ours))).await? {
            for tag in image.repo_tags.iter().filter(|tag| *tag != current) {
                // One that still holds a network is refused, and goes the next time.
                let removal = api.remove_image(tag, None::<RemoveImageOptions>, None);
                let _ = self.client.call("remove an old image of the gate", CallKind::Slow, removal).await;
            }
        }
        Ok(())
    }

    /// Whether the engine has an image.
    pub(super) async fn has_image(&self, image: &str) -> Result<bool, EngineError> {
        let api = self.client.api().await?;
        Ok(optional(self.client.call("inspect an image", CallKind::Quick, api.inspect_image(image)).await)?.is_some())
    }
}

/// The gate, and the place where a workspace is mounted, open to every user: an engine gives a new volume the mode of the
/// directory that it first covers.
fn pause_layer() -> Result<Vec<u8>, EngineError> {
    let mut tar = Builder::new(Vec::new());
    let mut entry = |path: &str, kind: EntryType, mode: u32, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, path, bytes)
    };
    entry("beespace-gate", EntryType::Regular, 0o755, PAUSE_PROGRAM)?;
    entry("workspace/", EntryType::Directory, 0o777, &[])?;
    Ok(tar.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_says_what_it_cannot_do_and_ends() {
        for orders in ["close nonsense", "open 10.0.0.0/x", "close", "dance 10.0.0.0/8"] {
            let ended =
                std::process::Command::new(concat!(env!("OUT_DIR"), "/beespace-gate")).args(orders.split(' ')).output().unwrap();
            assert_eq!((ended.status.code(), String::from_utf8(ended.stdout).unwrap()), (Some(3), format!("cannot {orders}\n")));
        }
    }

    #[test]
    fn the_gate_is_static_and_small() {
        assert!(PAUSE_PROGRAM.starts_with(b"\x7fELF"));
        assert!(PAUSE_PROGRAM.len() <= 1_000_000, "{} bytes", PAUSE_PROGRAM.len());
        assert!(!PAUSE_PROGRAM.windows(11).any(|window| window == b"/lib64/ld-l"), "asks for a dynamic linker");
    }
}
