//! Style, script and icons, in the binary. Their names carry a hash of their content, so browsers may keep them for ever.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Assets;

fn tag(file: &EmbeddedFile) -> String {
    hex::encode(file.metadata.sha256_hash().get(..6).unwrap_or_default())
}

/// The address of an asset: `app.css` becomes `/-/assets/app.1f2e3d4c5b6a.css`.
#[must_use]
pub fn address(name: &str) -> String {
    let tag = Assets::get(name).map(|file| tag(&file)).unwrap_or_default();
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

/// Serves an asset under exactly the name that [`address`] gives.
pub(super) async fn serve(Path(file): Path<String>) -> Response {
    let name = file.rsplit_once('.').and_then(|(rest, extension)| {
        let (stem, _) = rest.rsplit_once('.')?;
        Some(format!("{stem}.{extension}"))
    });
    let Some(name) = name.filter(|name| address(name) == format!("/-/assets/{file}")) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(content) = Assets::get(&name) else { return StatusCode::NOT_FOUND.into_response() };
    let headers = [(header::CONTENT_TYPE, content_type(&name)), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, content.data).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_assets_carry_their_content() {
        let css = address("app.css");
        assert!(css.starts_with("/-/assets/app.") && css.ends_with(".css") && css.len() == "/-/assets/app.".len() + 16, "{css}");
    }
}
