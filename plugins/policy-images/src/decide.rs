//! The decision: checks every image against the settings.

use crate::bindings::beespace::plugin::types::{Finding, Severity};
use crate::bindings::exports::beespace::plugin::policy::{Outcome, Verdict};
use crate::glob;
use crate::image_ref::ImageRef;
use crate::settings::Settings;
use crate::subject::ImageUse;

/// Denies with a finding for every violation; abstains if there is no image.
pub(crate) fn decide(settings: &Settings, uses: &[ImageUse]) -> Verdict {
    let findings: Vec<Finding> = uses.iter().flat_map(|image_use| check(settings, image_use)).collect();
    let outcome = match (uses, findings.as_slice()) {
        ([], _) => Outcome::Abstain,
        (_, []) => Outcome::Allow,
        _ => Outcome::Deny,
    };
    Verdict { outcome, findings, patches: Vec::new(), approvals: Vec::new(), obligations: Vec::new() }
}

fn check(settings: &Settings, image_use: &ImageUse) -> Vec<Finding> {
    let reference: ImageRef = match image_use.image.parse() {
        Ok(reference) => reference,
        Err(error) => {
            let message = format!("Image {:?} in {} is not a valid image name: {error}", image_use.image, image_use.location);
            return vec![finding(image_use, "not-an-image", message, "Write a name such as rust:1.95".to_owned())];
        }
    };
    [
        check_name(settings, image_use, &reference),
        check_tag(settings, image_use, &reference),
        check_digest(settings, image_use, &reference),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check_name(settings: &Settings, image_use: &ImageUse, reference: &ImageRef) -> Option<Finding> {
    let name = reference.name();
    let is_allowed = settings.registries.iter().any(|registry| registry == reference.registry())
        || settings.repositories.iter().any(|pattern| glob::matches(pattern, &name));
    if is_allowed || !settings.restricts_names() {
        return None;
    }
    let message = format!(
        "Image {:?} in {} comes from {name}, which is not on the list of allowed images",
        image_use.image, image_use.location
    );
    let allowed: Vec<&str> = settings.registries.iter().chain(&settings.repositories).map(String::as_str).collect();
    let remedy = format!("Use an image from {}, or ask an administrator to allow {name}", listed(&allowed));
    Some(finding(image_use, "not-allowed", message, remedy))
}

/// An image with a digest is not checked: the digest determines the image, regardless of the tag.
fn check_tag(settings: &Settings, image_use: &ImageUse, reference: &ImageRef) -> Option<Finding> {
    if reference.digest().is_some() {
        return None;
    }
    let tag = reference.tag().unwrap_or("latest");
    let has_tag =
        if reference.tag().is_some() { format!("has the tag {tag:?}") } else { format!("has no tag, which means {tag:?}") };
    let subject = format!("Image {:?} in {} {has_tag}", image_use.image, image_use.location);
    if settings.forbidden_tags.iter().any(|pattern| glob::matches(pattern, tag)) {
        let remedy = format!("Use a version tag, as in {}:1.2.3, or pin the image by digest", short(image_use));
        return Some(finding(image_use, "tag-forbidden", format!("{subject}; that tag is forbidden"), remedy));
    }
    let matches_required =
        settings.required_tags.is_empty() || settings.required_tags.iter().any(|pattern| glob::matches(pattern, tag));
    if matches_required {
        return None;
    }
    let required: Vec<&str> = settings.required_tags.iter().map(String::as_str).collect();
    let remedy = format!("Use a tag that matches {}, or pin the image by digest", listed(&required));
    Some(finding(image_use, "tag-required", format!("{subject}; it matches none of the required tags"), remedy))
}

fn check_digest(settings: &Settings, image_use: &ImageUse, reference: &ImageRef) -> Option<Finding> {
    if !settings.require_digest || reference.digest().is_some() {
        return None;
    }
    let message = format!("Image {:?} in {} is not pinned by digest", image_use.image, image_use.location);
    let remedy = format!(
        "Write {}@sha256:… with the digest that `docker buildx imagetools inspect {}` prints",
        image_use.image, image_use.image
    );
    Some(finding(image_use, "digest-required", message, remedy))
}

/// The image as written, without its tag.
fn short(image_use: &ImageUse) -> &str {
    match image_use.image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => &image_use.image,
    }
}

/// Joins as `a, b or c`. A long list is shortened.
fn listed(texts: &[&str]) -> String {
    match texts {
        [] => "nowhere".to_owned(),
        [only] => (*only).to_owned(),
        [first @ .., last] if first.len() < 5 => format!("{} or {last}", first.join(", ")),
        many => format!(
            "{} or one of {} more",
            many.iter().take(5).copied().collect::<Vec<_>>().join(", "),
            many.len().saturating_sub(5)
        ),
    }
}

fn finding(image_use: &ImageUse, rule: &str, message: String, remedy: String) -> Finding {
    Finding {
        rule_id: format!("policy-images/{rule}"),
        severity: Severity::High,
        message,
        pointer: Some(image_use.pointer.clone()),
        help_url: None,
        remedy: Some(remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(settings: &str, image: &str) -> Vec<String> {
        let image_use = ImageUse { image: image.to_owned(), pointer: "/x".to_owned(), location: "step \"a\"".to_owned() };
        let verdict = decide(&Settings::read(settings).unwrap(), &[image_use]);
        assert_eq!(verdict.outcome == Outcome::Allow, verdict.findings.is_empty());
        verdict.findings.into_iter().map(|finding| finding.rule_id.replace("policy-images/", "")).collect()
    }

    const PINNED: &str = "evil.example/x:latest@sha256:0000000000000000000000000000000000000000000000000000000000000000";

    #[test]
    fn images_come_from_allowed_repositories() {
        let settings = r#"{"registries": ["GHCR.io"], "repositories": ["rust", "quay.io/acme/*"]}"#;
        for image in ["rust", "docker.io/library/rust:1", "ghcr.io/any/thing", "quay.io/acme/app:2"] {
            assert_eq!(rules(settings, image), [""; 0], "{image}");
        }
        for image in ["alpine", "evil.example/rust", "quay.io/acme/a/b", "ghcr.io.evil.example/any", PINNED, "library/rusty"] {
            assert_eq!(rules(settings, image), ["not-allowed"], "{image}");
        }
    }

    #[test]
    fn tags_are_checked_unless_the_image_is_pinned() {
        let settings = r#"{"forbidden_tags": ["latest", "*-nightly"], "required_tags": ["1.*", "latest"]}"#;
        for (image, expected) in [
            ("rust", &["tag-forbidden"][..]),
            ("rust:latest", &["tag-forbidden"]),
            ("rust:1.95-nightly", &["tag-forbidden"]),
            ("localhost:5000/rust", &["tag-forbidden"]),
            ("rust:2", &["tag-required"]),
            ("rust:1.95", &[]),
            (PINNED, &[]),
        ] {
            assert_eq!(rules(settings, image), expected, "{image}");
        }
    }

    #[test]
    fn digests_are_required_and_every_violation_is_reported() {
        let settings = r#"{"require_digest": true, "registries": ["docker.io"], "forbidden_tags": ["latest"]}"#;
        assert_eq!(rules(settings, "evil.example/x"), ["not-allowed", "tag-forbidden", "digest-required"]);
        assert_eq!(rules(settings, PINNED), ["not-allowed"]);
        assert_eq!(rules(settings, "Not An Image"), ["not-an-image"]);
    }

    #[test]
    fn ids_of_images_are_never_allowed() {
        let id = format!("sha256:{}", "63a9".repeat(16));
        for image in ["63a9", "63a92a6b53de", &id, &id["sha256:".len()..], "sha256:63a92a6b53de"] {
            assert_eq!(rules(r#"{"repositories": ["docker.io/library/*"]}"#, image), ["not-an-image"], "{image}");
        }
    }

    #[test]
    fn a_subject_without_images_is_abstained_from() {
        assert_eq!(decide(&Settings::default(), &[]).outcome, Outcome::Abstain);
    }

    #[test]
    fn the_finding_names_the_rule_and_the_remedy() {
        let image_use = ImageUse { image: "rust".to_owned(), pointer: "/x".to_owned(), location: "step \"a\"".to_owned() };
        let verdict = decide(&Settings::read(r#"{"forbidden_tags": ["latest"]}"#).unwrap(), &[image_use]);
        assert_eq!(
            verdict.findings[0].message,
            "Image \"rust\" in step \"a\" has no tag, which means \"latest\"; that tag is forbidden"
        );
        assert_eq!(
            verdict.findings[0].remedy.as_deref(),
            Some("Use a version tag, as in rust:1.2.3, or pin the image by digest")
        );
    }
}
