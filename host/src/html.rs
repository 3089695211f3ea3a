//! HTML escaping and markup that is known to be safe. Only markup built here and in templates reaches a page unescaped.

use std::fmt;

use askama::filters::HtmlSafe;

/// Markup that is safe to insert into a page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Html(String);

impl Html {
    /// Wraps markup that the caller has built from literals and escaped text only.
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

/// Escapes one character as [`escape`] does.
pub fn escape_char(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        c => out.push(c),
    }
}

/// Formats a message for a page: text between backticks becomes `<code>`. Terminals print the backticks as they are.
#[must_use]
pub fn prose(text: &str) -> Html {
    let pieces: Vec<&str> = text.split('`').collect();
    // An even number of pieces means an unpaired backtick.
    if pieces.len().is_multiple_of(2) {
        return Html(escape(text));
    }
    let markup = |(index, piece): (usize, &&str)| {
        if index % 2 == 0 { escape(piece) } else { format!("<code>{}</code>", escape(piece)) }
    };
    Html(pieces.iter().enumerate().map(markup).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paired_backticks_become_code_and_their_content_is_escaped() {
        assert_eq!(prose("run `a <b>`, then `c`").to_string(), "run <code>a &lt;b&gt;</code>, then <code>c</code>");
        assert_eq!(prose("a ` alone & `x`").to_string(), "a ` alone &amp; `x`");
    }

    #[test]
    fn markup_characters_are_escaped() {
        assert_eq!(escape("<a href='x'>&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;");
    }
}
