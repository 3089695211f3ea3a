//! Pushes without a build, with the reason, shown below a list of builds.

use beespace_core::sanitize;

use super::client::Client;
use super::{Context, print_stderr};
use crate::api::delivery::DeliveryBody;
use crate::api::dto::BuildBody;
use crate::urls::API_PREFIX;

/// The newest deliveries that are looked at.
const LOOKED_AT: usize = 20;

/// The title of a build; while its source is not fetched, with the reason why the build waits.
pub(super) fn title(build: &BuildBody) -> String {
    match build.reason.as_ref().filter(|_| build.number.is_none()) {
        Some(reason) => format!("{} ({})", build.title, reason.message),
        None => build.title.clone(),
    }
}

/// Reports the newest push that has no build, if no listed build is newer.
pub(super) async fn report(context: &Context, client: &Client, builds: &[BuildBody]) {
    // The list is complete without this remark, so a failure is not reported.
    let path = format!("{API_PREFIX}/deliveries?limit={LOOKED_AT}");
    let deliveries: Vec<DeliveryBody> = client.get(&path).await.unwrap_or_default();
    let repository = context.target.repo.as_ref().map(ToString::to_string);
    if let Some(remark) = remark(&deliveries, builds, repository.as_deref()) {
        print_stderr(&remark);
    }
}

fn remark(deliveries: &[DeliveryBody], builds: &[BuildBody], repository: Option<&str>) -> Option<String> {
    let is_wanted = |delivery: &&DeliveryBody| {
        delivery.event == "push" && repository.is_none_or(|name| name.eq_ignore_ascii_case(&delivery.repository))
    };
    let last = deliveries.iter().find(is_wanted).filter(|last| matches!(last.outcome.as_str(), "ignored" | "dead_letter"))?;
    // Both times have the same form, so they sort as texts.
    if builds.iter().any(|build| build.repository == last.repository && build.created_at > last.received_at) {
        return None;
    }
    let reason = last.reason.as_deref().unwrap_or("see `beespace delivery show`");
    Some(format!("the last push to {} has no build: {}", last.repository, sanitize::line(reason)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn delivery(repository: &str, event: &str, outcome: &str, minute: u8) -> DeliveryBody {
        let received_at = format!("2026-01-01T00:{minute:02}:00Z");
        let body = json!({ "id": "1", "repository": repository, "forge_id": "f", "event": event, "sha256": "s", "bytes": 1,
            "received_at": received_at, "outcome": outcome, "reason": "no pipeline file at 95a2db4" });
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn the_last_push_without_a_build_is_reported() {
        let ignored = delivery("ada/hive", "push", "ignored", 5);
        let text = "the last push to ada/hive has no build: no pipeline file at 95a2db4";
        let of = |deliveries: &[DeliveryBody], repository| remark(deliveries, &[], repository);
        assert_eq!(of(std::slice::from_ref(&ignored), None).as_deref(), Some(text));
        assert_eq!(of(std::slice::from_ref(&ignored), Some("Ada/Hive")).as_deref(), Some(text));
        assert_eq!(of(std::slice::from_ref(&ignored), Some("ada/comb")), None);
        // Events that never build anything do not hide the push, and a push that was built is not reported.
        let created = delivery("ada/hive", "create", "ignored", 6);
        assert_eq!(of(&[created, ignored.clone()], None).as_deref(), Some(text));
        assert_eq!(of(&[delivery("ada/hive", "push", "built", 6), ignored], None), None);
    }
}
