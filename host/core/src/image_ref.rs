//! References to container images, parsed as engines parse them (`distribution/reference`).
//!
//! This file uses only the standard library, because `plugins/policy-images` compiles it too. The policy and the host therefore
//! always resolve a reference to the same image.

use std::fmt;

/// The registry of a reference that names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// The tag of a reference that has neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// A reference to an image: `rust:1.95` is `docker.io/library/rust:1.95`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// The text is not a reference to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidImageRef {
    /// The problem, without the text itself.
    pub reason: &'static str,
}

impl fmt::Display for InvalidImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for InvalidImageRef {}

const fn invalid<T>(reason: &'static str) -> Result<T, InvalidImageRef> {
    Err(InvalidImageRef { reason })
}

impl ImageRef {
    /// Host and port in lower case: `docker.io`, `registry.example:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry: `library/rust`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag as written. Without tag and digest an engine uses `latest`.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// `sha256:…`; takes precedence over the tag.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Registry and repository: `docker.io/library/rust`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The normal form: the complete name with exactly one of tag and digest, `docker.io/library/rust:latest`. An engine has
    /// only one interpretation of it. The text as written may have several: `63a9` is also the beginning of an image's id.
    #[must_use]
    pub fn normalized(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.name()),
            (None, tag) => format!("{}:{}", self.name(), tag.as_deref().unwrap_or(DEFAULT_TAG)),
        }
    }

    /// Whether the registry may give this reference to another image at any time and usually does: its tag is `latest`, or it has
    /// neither tag nor digest.
    #[must_use]
    pub fn is_latest(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref().is_none_or(|tag| tag == DEFAULT_TAG)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for ImageRef {
    type Err = InvalidImageRef;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return invalid("a digest is `sha256:` followed by 64 lower-case hex digits");
        }
        // A colon after the last slash begins the tag; a colon before it belongs to the port of the registry.
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (named, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return invalid("a tag has 1 to 128 letters, digits, `_`, `.` and `-`, and begins with a letter, digit or `_`");
        }
        if is_id(name, tag, digest) {
            return invalid("an engine may read it as an image id; use a name, with a tag or registry if it has only hex digits");
        }
        let (registry, repository) = split_registry(name)?;
        if registry.len() + repository.len() >= 255 {
            return invalid("a name has at most 255 characters");
        }
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) })
    }
}

/// The first part is a registry if it looks like a host: it contains a dot or a port, or is `localhost`.
fn split_registry(name: &str) -> Result<(String, String), InvalidImageRef> {
    let host = name.split_once('/').filter(|(first, _)| first.contains(['.', ':']) || *first == "localhost");
    let (registry, path) = host.unwrap_or((DEFAULT_REGISTRY, name));
    if path.is_empty() {
        return invalid("the name is empty");
    }
    if !is_registry(registry) {
        return invalid("the registry must be a host name or an address, optionally with a port");
    }
    if !path.split('/').all(is_path_part) {
        return invalid(
            "a name consists of parts separated by `/`; a part has lower-case letters and digits, joined by `.`, `_`, `__` or \
             `-`",
        );
    }
    let registry = match registry.to_ascii_lowercase() {
        old if old == "index.docker.io" => DEFAULT_REGISTRY.to_owned(),
        registry => registry,
    };
    let is_official = registry == DEFAULT_REGISTRY && !path.contains('/');
    let repository = if is_official { format!("library/{path}") } else { path.to_owned() };
    Ok((registry, repository))
}

/// Whether an engine may take the text for the id of an image, or for the beginning of one: `sha256:` with hex digits, or hex
/// digits alone.
fn is_id(name: &str, tag: Option<&str>, digest: Option<&str>) -> bool {
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(is_lower_hex);
    match tag {
        Some(tag) => name == "sha256" && is_hex(tag),
        None => digest.is_none() && is_hex(name),
    }
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_lower_hex))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
        && tag.bytes().next().is_some_and(is_word)
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => return is_port(port),
                None => return rest.is_empty(),
            }
        }
        None => registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port))),
    };
    host.split('.').all(is_host_label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// `[a-z0-9]+` joined by one of `.`, `_`, `__` or any number of `-`.
fn is_path_part(part: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_allowed = part.bytes().all(|b| is_plain(b) || matches!(b, b'.' | b'_' | b'-'));
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|between| !between.is_empty());
    let are_joints = separators.into_iter().all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|b| b == b'-'));
    is_allowed && are_joints && part.bytes().next().is_some_and(is_plain) && part.bytes().next_back().is_some_and(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        text.parse::<ImageRef>().map_or_else(|error| format!("! {error}"), |reference| reference.to_string())
    }

    #[test]
    fn short_names_resolve_as_in_docker() {
        for (text, meaning) in [
            ("rust", "docker.io/library/rust"),
            ("rust:1.95", "docker.io/library/rust:1.95"),
            ("plugins/slack", "docker.io/plugins/slack"),
            ("index.docker.io/rust", "docker.io/library/rust"),
            ("docker.io/rust", "docker.io/library/rust"),
            ("localhost/app", "localhost/app"),
            ("localhost:5000/app:2", "localhost:5000/app:2"),
            ("GHCR.io/acme/app", "ghcr.io/acme/app"),
            ("registry.example:5000/a/b/c:t", "registry.example:5000/a/b/c:t"),
            ("[::1]:5000/app", "[::1]:5000/app"),
            ("a__b.c-d---e:X_1.2-3", "docker.io/library/a__b.c-d---e:X_1.2-3"),
        ] {
            assert_eq!(read(text), meaning, "{text}");
        }
    }

    #[test]
    fn a_digest_follows_the_tag() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let reference: ImageRef = format!("rust:1.95@{digest}").parse().unwrap();
        assert_eq!(reference.digest(), Some(digest.as_str()));
        assert_eq!(reference.tag(), Some("1.95"));
        assert_eq!(reference.name(), "docker.io/library/rust");
    }

    #[test]
    fn an_engine_gets_the_complete_name_with_one_of_tag_and_digest() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let normalized = |text: &str| text.parse::<ImageRef>().unwrap().normalized();
        assert_eq!(normalized("rust"), "docker.io/library/rust:latest");
        assert_eq!(normalized("GHCR.io/acme/app:2"), "ghcr.io/acme/app:2");
        assert_eq!(normalized(&format!("rust:1.95@{digest}")), format!("docker.io/library/rust@{digest}"));
        for text in ["rust", "ghcr.io/acme/app:2"] {
            assert_eq!(normalized(&normalized(text)), normalized(text));
        }
    }

    #[test]
    fn ids_of_images_are_refused_and_names_that_resemble_them_are_not() {
        let id = "63a92a6b53de".repeat(5) + "63a9";
        let (prefixed, short) = (format!("sha256:{id}"), format!("sha256:{}", &id[..7]));
        for text in [&*id, &id[..40], &id[..12], "63a9", "6", "cafe", &prefixed, &short] {
            assert!(read(text).starts_with("! an engine may read it as an image id"), "{text}: {}", read(text));
        }
        for text in ["63a92a6b53de:latest", "docker.io/library/63a92a6b53de", "acme/cafe", "cafes", "sha256:v1", "sha256"] {
            assert!(!read(text).starts_with('!'), "{text}: {}", read(text));
        }
    }

    #[test]
    fn only_latest_and_no_tag_are_expected_to_move() {
        let is_latest = |text: &str| text.parse::<ImageRef>().unwrap().is_latest();
        assert!(is_latest("rust") && is_latest("rust:latest"));
        assert!(!is_latest("rust:1.95") && !is_latest(&format!("rust@sha256:{}", "0a".repeat(32))));
    }

    #[test]
    fn references_that_no_engine_accepts_are_refused() {
        let long = "x".repeat(256);
        for text in [
            "",
            ":tag",
            "Rust",
            "a//b",
            "/a",
            "a/",
            "a b",
            "a:",
            "a:-x",
            "a@",
            "a@sha256:12",
            "a@md5:00",
            "a@sha256:AB",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a.-b",
            "ghcr.io/",
            "-x.io/a",
            "x.io:0/a",
            "x.io:99999/a",
            "x.io:/a",
            "[::1/a",
            "[zz]:1/a",
            "a\n",
            "a:b:c",
            "ü",
            "https://x.io/a",
            "$(id)",
            "../a",
            &long,
        ] {
            assert!(read(text).starts_with('!'), "{text}: {}", read(text));
        }
    }
}
