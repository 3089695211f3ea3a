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
use crate::problem::Problem;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Assets;

/// The style sheet: `app.css`, followed by the generated rules for terminal colours.
static STYLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut style = Assets::get(STYLE_NAME).map(|file| file.data.into_owned()).unwrap_or_default();
    style.extend(ansi::css().into_bytes());
    style
});
const STYLE_NAME: &str = "app.css";

fn content(name: &str) -> Option<Cow<'static, [u8]>> {
    if name == STYLE_NAME { Some(Cow::Borrowed(&STYLE)) } else { Assets::get(name).map(|file| file.data) }
}

fn content_hash(name: &str) -> Option<String> {
    static STYLE_TAG: LazyLock<String> = LazyLock::new(|| short_hex(&Sha256::digest(&*STYLE)));
    if name == STYLE_NAME {
        return Some(STYLE_TAG.clone());
    }
    Assets::get(name).map(|file| short_hex(&file.metadata.sha256_hash()))
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
        return Err(Problem::not_found("file").help("It may belong to another version: reload the page."));
    };
    let content = content(&name).ok_or_else(|| Problem::not_found("file"))?;
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
    fn the_style_sheet_contains_each_terminal_colour_rule_once() {
        let style = String::from_utf8(content(STYLE_NAME).unwrap().into_owned()).unwrap();
        for rule in [".card {", "--ansi-15:", ".a-bold{", ".a-f15{", ".a-b255{"] {
            assert_eq!(style.matches(rule).count(), 1, "{rule}");
        }
    }
}
