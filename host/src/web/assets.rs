//! Style sheet, script and icons, embedded in the binary. File names contain a hash of the content, so browsers may cache them
//! forever.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;
use sha2::{Digest as _, Sha256};

use crate::ansi;
use crate::http_problem::Problem;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Assets;

/// A file that is put together from others.
struct Bundle {
    name: &'static str,
    content: Vec<u8>,
    hash: String,
}

/// The style sheet is followed by the generated rules for terminal colours. Scripts are joined in this order: a script cannot
/// import another one, because it does not know the hash in its name.
static BUNDLES: LazyLock<[Bundle; 3]> = LazyLock::new(|| {
    let style = [joined(&["app.css", "log.css"]), ansi::css().into_bytes()].concat();
    let page = ["stream", "page", "live", "log", "keys"].map(|part| format!("script/{part}.js"));
    let worker = ["stream", "worker"].map(|part| format!("script/{part}.js"));
    [("app.css", style), ("app.js", joined(&page)), ("worker.js", joined(&worker))].map(|(name, content)| Bundle {
        name,
        hash: short_hex(&Sha256::digest(&content)),
        content,
    })
});

fn joined(parts: &[impl AsRef<str>]) -> Vec<u8> {
    parts.iter().filter_map(|part| Assets::get(part.as_ref())).flat_map(|file| file.data.into_owned()).collect()
}

fn bundle(name: &str) -> Option<&'static Bundle> {
    BUNDLES.iter().find(|bundle| bundle.name == name)
}

fn content(name: &str) -> Option<Cow<'static, [u8]>> {
    match bundle(name) {
        Some(bundle) => Some(Cow::Borrowed(&bundle.content)),
        None => Assets::get(name).map(|file| file.data),
    }
}

fn content_hash(name: &str) -> Option<String> {
    match bundle(name) {
        Some(bundle) => Some(bundle.hash.clone()),
        None => Assets::get(name).map(|file| short_hex(&file.metadata.sha256_hash())),
    }
}

fn short_hex(digest: &[u8]) -> String {
    hex::encode(digest.get(..6).unwrap_or_default())
}

/// Path of an asset: `app.css` becomes `/-/assets/app.1f2e3d4c5b6a.css`.
#[must_use]
pub fn address(name: &str) -> String {
    let tag = content_hash(name).unwrap_or_default();
    match name.rsplit_once('.') {
        Some((stem, extension)) => format!("/-/assets/{stem}.{tag}.{extension}"),
        None => format!("/-/assets/{name}.{tag}"),
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// Serves an asset under exactly the path that [`address`] returns.
pub(super) async fn serve(Path(file): Path<String>) -> Result<Response, Problem> {
    let name = file.rsplit_once('.').and_then(|(rest, extension)| {
        let (stem, _) = rest.rsplit_once('.')?;
        Some(format!("{stem}.{extension}"))
    });
    let Some(name) = name.filter(|name| address(name) == format!("/-/assets/{file}")) else {
        return Err(Problem::not_found("file", file).help("the file may belong to another version: reload the page"));
    };
    let content = content(&name).ok_or_else(|| Problem::not_found("file", &name))?;
    let headers = [(header::CONTENT_TYPE, content_type(&name)), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((headers, content).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asset_names_contain_a_content_hash() {
        let css = address("app.css");
        assert!(css.starts_with("/-/assets/app.") && css.ends_with(".css") && css.len() == "/-/assets/app.".len() + 16, "{css}");
    }

    #[test]
    fn scripts_are_joined_from_their_parts() {
        for (name, starts) in
            [("app.js", ["function openStream(", "startLive();"]), ("worker.js", ["function openStream(", "onconnect ="])]
        {
            let script = String::from_utf8(content(name).unwrap().into_owned()).unwrap();
            for part in starts {
                assert_eq!(script.matches(part).count(), 1, "{part} in {name}");
            }
        }
    }

    #[test]
    fn the_style_sheet_contains_each_terminal_colour_rule_once() {
        let style = String::from_utf8(content("app.css").unwrap().into_owned()).unwrap();
        for rule in [".card {", "--ansi-15:", ".a-bold{", ".a-f15{", ".a-b255{"] {
            assert_eq!(style.matches(rule).count(), 1, "{rule}");
        }
    }
}
