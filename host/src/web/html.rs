//! Markup that pages share: icons, status words, points in time. Only what is written here reaches a page unescaped.

use std::fmt::{self, Write as _};
use std::time::Duration;

use askama::filters::HtmlSafe;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use chrono::{DateTime, SecondsFormat, Utc};

/// Markup that is known to be safe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Html(String);

impl Html {
    /// Takes text that the caller has built from literals and escaped parts only.
    #[must_use]
    pub fn trusted(markup: String) -> Self {
        Self(markup)
    }
}

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl askama::FastWritable for Html {
    fn write_into(&self, dest: &mut dyn fmt::Write, _: &dyn askama::Values) -> askama::Result<()> {
        dest.write_str(&self.0)?;
        Ok(())
    }
}

impl HtmlSafe for Html {}

/// Escapes text for use between tags and in quoted attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    text.chars().for_each(|c| escape_char(c, &mut escaped));
    escaped
}

/// A sentence of ours for a page: what stands between backticks, which terminals show as they are, is code.
#[must_use]
pub fn prose(text: &str) -> Html {
    let pieces: Vec<&str> = text.split('`').collect();
    // An even number of pieces means a backtick without its other half.
    if pieces.len().is_multiple_of(2) {
        return Html(escape(text));
    }
    let markup = |(index, piece): (usize, &&str)| {
        if index % 2 == 0 { escape(piece) } else { format!("<code>{}</code>", escape(piece)) }
    };
    Html(pieces.iter().enumerate().map(markup).collect())
}

/// The same for one character.
pub(super) fn escape_char(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        c => out.push(c),
    }
}

/// The drawing of an icon, 24 by 24. Unknown names draw nothing.
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
        "follow" => r#"<path d="M12 4v13m-5-5 5 5 5-5M5 21h14"/>"#,
        "theme" => r#"<circle cx="12" cy="12" r="8.5"/><path d="M12 3.5v17a8.5 8.5 0 0 0 0-17z" fill="currentcolor"/>"#,
        "keyboard" => r#"<path d="M2.5 6h19v12h-19zM6 10h.01M10 10h.01M14 10h.01M18 10h.01M7 14h10"/>"#,
        "repository" => r#"<path d="M5 4.5A1.5 1.5 0 0 1 6.5 3H19v18H6.5A1.5 1.5 0 0 1 5 19.5zM5 17.5h14"/>"#,
        _ => "",
    }
}

/// An icon beside text that says the same.
#[must_use]
pub fn icon(name: &str) -> Html {
    Html(format!(r#"<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">{}</svg>"#, icon_paths(name)))
}

/// A status as pages show it: an icon and the word, never a colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusLabel(pub Status);

impl StatusLabel {
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.0.as_str()
    }

    #[must_use]
    pub fn pill(&self) -> Html {
        let word = self.word();
        Html(format!(r#"<span class="status pill s-{word}">{}{word}</span>"#, icon(word)))
    }

    /// The icon, with the word for those who do not see it.
    #[must_use]
    pub fn icon(&self) -> Html {
        let word = self.word();
        Html(format!(r#"<span class="status s-{word}">{}<span class="visually-hidden">{word}</span></span>"#, icon(word)))
    }
}

fn utc(at: Timestamp) -> DateTime<Utc> {
    i64::try_from(at.0).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
}

/// RFC 3339, to the millisecond.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    utc(at).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `3 minutes ago`, with the exact time in the element for scripts and for a pointer that rests on it.
#[must_use]
pub fn time(at: Timestamp, now: Timestamp) -> Html {
    let exact = utc(at).format("%Y-%m-%d %H:%M:%S UTC");
    Html(format!(r#"<time datetime="{}" title="{exact}">{}</time>"#, rfc3339(at), ago(at, now)))
}

/// How long ago, in the largest unit that fits; a date beyond a month.
#[must_use]
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(at).as_secs();
    let (count, unit) = match seconds {
        0..=9 => return "just now".to_owned(),
        10..=59 => (seconds, "second"),
        60..=3_599 => (seconds / 60, "minute"),
        3_600..=86_399 => (seconds / 3_600, "hour"),
        86_400..=2_591_999 => (seconds / 86_400, "day"),
        _ => return utc(at).format("%Y-%m-%d").to_string(),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// `4 ms`, `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match seconds {
        0 if duration.as_millis() < 100 => write!(text, "{} ms", duration.as_millis()),
        0..=9 => write!(text, "{}.{} s", seconds, duration.subsec_millis() / 100),
        10..=59 => write!(text, "{seconds} s"),
        60..=3_599 => write!(text, "{} min {:02} s", seconds / 60, seconds % 60),
        _ => write!(text, "{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
    };
    text
}

/// How long something took, or has been running; empty before its start.
#[must_use]
pub fn elapsed(started: Option<Timestamp>, finished: Option<Timestamp>, now: Timestamp) -> String {
    started.map_or_else(String::new, |started| format_duration(finished.unwrap_or(now).since(started)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_an_icon_and_a_word() {
        for status in Status::ALL {
            let pill = StatusLabel(status).pill().to_string();
            assert!(pill.contains(&format!("</svg>{}", status.as_str())), "{pill}");
            assert!(!icon_paths(status.as_str()).is_empty(), "{status}");
        }
    }

    #[test]
    fn times_read_like_speech() {
        let now = Timestamp(1_800_000_000_000);
        let before = |seconds: u64| Timestamp(now.0 - seconds * 1000);
        assert_eq!(ago(before(3), now), "just now");
        assert_eq!(ago(before(60), now), "1 minute ago");
        assert_eq!(ago(before(7_300), now), "2 hours ago");
        assert_eq!(ago(before(40 * 86_400), now), "2026-12-06");
        assert_eq!(format_duration(Duration::from_millis(4)), "4 ms");
        assert_eq!(format_duration(Duration::from_millis(450)), "0.4 s");
        assert_eq!(format_duration(Duration::from_secs(185)), "3 min 05 s");
        assert_eq!(format_duration(Duration::from_secs(7_800)), "2 h 10 min");
    }

    #[test]
    fn backticks_in_pairs_are_code_and_nothing_in_them_is_markup() {
        assert_eq!(prose("run `a <b>`, then `c`").to_string(), "run <code>a &lt;b&gt;</code>, then <code>c</code>");
        assert_eq!(prose("a ` alone & `x`").to_string(), "a ` alone &amp; `x`");
    }

    #[test]
    fn text_of_strangers_is_escaped() {
        assert_eq!(escape("<a href='x'>&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;");
    }
}
