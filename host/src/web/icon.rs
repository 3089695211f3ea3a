//! Icons and status labels of pages.

use beespace_core::status::Status;

use crate::html::Html;

/// The SVG elements of an icon, 24 by 24. An unknown name gives an empty icon.
fn icon_paths(name: &str) -> &'static str {
    match name {
        "success" => r#"<circle cx="12" cy="12" r="9.5"/><path d="m8 12.5 2.8 2.8L16.2 9"/>"#,
        "failure" => r#"<circle cx="12" cy="12" r="9.5"/><path d="m9 9 6 6m0-6-6 6"/>"#,
        "error" => r#"<path d="M12 3 2.5 20h19zM12 10v4.5m0 2.8v.2"/>"#,
        "declined" => r#"<path d="M12 2.5 20 6v6c0 5-3.4 8.2-8 9.5C7.4 20.2 4 17 4 12V6zM9 9l6 6m0-6-6 6"/>"#,
        "killed" => r#"<circle cx="12" cy="12" r="9.5"/><path d="M9 9h6v6H9z"/>"#,
        "running" => r#"<path class="turns" d="M12 2.5a9.5 9.5 0 1 1-9.5 9.5"/><circle cx="12" cy="12" r="2.5"/>"#,
        "pending" => r#"<circle cx="12" cy="12" r="9.5"/><path d="M12 6.5V12l3.5 2"/>"#,
        "blocked" | "hand" => r#"<circle cx="12" cy="12" r="9.5"/><path d="M10 8.5v7m4-7v7"/>"#,
        "skipped" => r#"<circle cx="12" cy="12" r="9.5"/><path d="m7.5 9 3 3-3 3m5.5-6 3 3-3 3"/>"#,
        "stop" => r#"<path d="M6 6h12v12H6z"/>"#,
        "restart" => r#"<path d="M4 12a8 8 0 1 0 2.5-5.8L4 8.5M4 4v4.5h4.5"/>"#,
        "out" => r#"<path d="M14 4h6v6m0-6L11 13M18 14v5a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V7a1 1 0 0 1 1-1h5"/>"#,
        "raw" => r#"<path d="M14 3H6v18h12V7zM14 3v4h4M9 12h6M9 16h6"/>"#,
        "copy" => r#"<path d="M9 9h11v12H9zM5 15H4V3h11v2"/>"#,
        "wrap" => r#"<path d="M3 5h18M3 12h14.5a3.5 3.5 0 0 1 0 7H12m2.5-2.5L12 19l2.5 2.5M3 19h5"/>"#,
        "follow" => r#"<path d="M12 4v13m-5-5 5 5 5-5M5 21h14"/>"#,
        "theme" => r#"<circle cx="12" cy="12" r="8.5"/><path d="M12 3.5v17a8.5 8.5 0 0 0 0-17z" fill="currentcolor"/>"#,
        "keyboard" => r#"<path d="M2.5 6h19v12h-19zM6 10h.01M10 10h.01M14 10h.01M18 10h.01M7 14h10"/>"#,
        "repository" => r#"<path d="M5 4.5A1.5 1.5 0 0 1 6.5 3H19v18H6.5A1.5 1.5 0 0 1 5 19.5zM5 17.5h14"/>"#,
        _ => "",
    }
}

/// An icon next to text with the same meaning, so it is hidden from screen readers.
#[must_use]
pub fn icon(name: &str) -> Html {
    Html::trusted(format!(r#"<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">{}</svg>"#, icon_paths(name)))
}

/// A status on a page: always an icon and the name, never only a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusLabel(pub Status);

impl StatusLabel {
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.as_str()
    }

    #[must_use]
    pub fn pill(&self) -> Html {
        let name = self.name();
        Html::trusted(format!(r#"<span class="status pill s-{name}">{}{name}</span>"#, icon(name)))
    }

    /// The icon, with the name for screen readers.
    #[must_use]
    pub fn icon(&self) -> Html {
        let name = self.name();
        Html::trusted(format!(
            r#"<span class="status s-{name}">{}<span class="visually-hidden">{name}</span></span>"#,
            icon(name)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_an_icon_and_a_name() {
        for status in Status::ALL {
            let pill = StatusLabel(status).pill().to_string();
            assert!(pill.contains(&format!("</svg>{}", status.as_str())), "{pill}");
            assert!(!icon_paths(status.as_str()).is_empty(), "{status}");
        }
    }
}
