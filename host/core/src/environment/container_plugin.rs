//! The variables of Drone and Woodpecker. Images that are made as plugins for these servers read them, so steps that use an image
//! as a plugin get them besides those of Beespace.
//!
//! A variable without a value is absent: many plugins read numbers from these variables and refuse empty text. Where the two
//! servers give one name two meanings, the value is Woodpecker's.

use semver::Version;

use super::{Inputs, pull_request, seconds, sha, to_env_value, workspace};
use crate::event::EventKind;
use crate::status::Status;

/// Computes a value; empty text means that the variable is absent.
type Value = fn(&Inputs<'_>) -> String;

/// The names of each value.
pub const VARIABLES: &[(&[&str], Value)] = &[
    (&["DRONE"], |_| "true".to_owned()),
    (&["DRONE_REPO", "CI_REPO"], |inputs| inputs.build.event.repository.name.to_string()),
    (&["DRONE_REPO_OWNER", "DRONE_REPO_NAMESPACE", "CI_REPO_OWNER"], |inputs| {
        inputs.build.event.repository.name.owner().to_owned()
    }),
    (&["DRONE_REPO_NAME", "CI_REPO_NAME"], |inputs| inputs.build.event.repository.name.name().to_owned()),
    (&["CI_REPO_REMOTE_ID"], |inputs| inputs.build.event.repository.id.to_string()),
    (&["DRONE_REPO_LINK", "CI_REPO_URL", "CI_REPO_LINK"], |inputs| inputs.build.event.repository.html_url.clone()),
    (&["DRONE_REPO_BRANCH", "CI_REPO_DEFAULT_BRANCH"], |inputs| inputs.build.event.repository.default_branch.clone()),
    (&["DRONE_REPO_PRIVATE", "CI_REPO_PRIVATE"], |inputs| inputs.build.event.repository.is_private.to_string()),
    (&["DRONE_REPO_VISIBILITY"], |inputs| if inputs.build.event.repository.is_private { "private" } else { "public" }.to_owned()),
    (&["DRONE_REPO_SCM", "CI_REPO_SCM"], |_| "git".to_owned()),
    (&["DRONE_REMOTE_URL", "DRONE_GIT_HTTP_URL", "CI_REPO_CLONE_URL", "CI_REPO_REMOTE", "CI_REMOTE_URL"], |inputs| {
        format!("{}.git", inputs.build.event.repository.html_url)
    }),
    (&["DRONE_COMMIT", "DRONE_COMMIT_SHA", "DRONE_COMMIT_AFTER", "CI_COMMIT_SHA"], |inputs| sha(inputs.build).to_owned()),
    (&["DRONE_COMMIT_BEFORE", "CI_PREV_COMMIT_SHA"], |inputs| inputs.build.before().map(ToString::to_string).unwrap_or_default()),
    (&["DRONE_COMMIT_REF", "CI_COMMIT_REF"], |inputs| inputs.build.event.git_ref()),
    (&["DRONE_BRANCH", "DRONE_COMMIT_BRANCH", "DRONE_TARGET_BRANCH", "CI_COMMIT_BRANCH"], |inputs| {
        inputs.build.event.branch_or_target().unwrap_or_default().to_owned()
    }),
    (&["DRONE_PULL_REQUEST", "CI_COMMIT_PULL_REQUEST"], |inputs| pull_request(inputs, |pull| pull.number.to_string())),
    (&["DRONE_PULL_REQUEST_TITLE"], |inputs| pull_request(inputs, |pull| pull.title.clone())),
    (&["CI_COMMIT_PULL_REQUEST_LABELS"], |inputs| pull_request(inputs, |pull| pull.labels.join(","))),
    (&["CI_COMMIT_TARGET_BRANCH"], |inputs| pull_request(inputs, |pull| pull.target_branch.clone())),
    (&["DRONE_SOURCE_BRANCH", "CI_COMMIT_SOURCE_BRANCH"], |inputs| pull_request(inputs, |pull| pull.source_branch.clone())),
    (&["DRONE_TAG", "CI_COMMIT_TAG"], |inputs| inputs.build.event.tag().unwrap_or_default().to_owned()),
    (&["DRONE_COMMIT_MESSAGE", "CI_COMMIT_MESSAGE"], |inputs| {
        inputs.build.head.as_ref().map(|head| head.message.clone()).unwrap_or_default()
    }),
    (&["DRONE_COMMIT_AUTHOR", "CI_COMMIT_AUTHOR", "DRONE_BUILD_TRIGGER", "CI_PIPELINE_AUTHOR"], |inputs| {
        inputs.build.event.sender.login.clone()
    }),
    (&["DRONE_COMMIT_AUTHOR_NAME", "CI_COMMIT_AUTHOR_NAME"], |inputs| {
        inputs.build.head.as_ref().map(|head| head.author.name.clone()).unwrap_or_default()
    }),
    (&["DRONE_COMMIT_AUTHOR_EMAIL", "CI_COMMIT_AUTHOR_EMAIL"], |inputs| {
        inputs.build.head.as_ref().map(|head| head.author.email.clone()).unwrap_or_default()
    }),
    (&["DRONE_COMMIT_LINK", "CI_PIPELINE_FORGE_URL"], |inputs| match sha(inputs.build) {
        "" => String::new(),
        sha => format!("{}/commit/{sha}", inputs.build.event.repository.html_url),
    }),
    (&["DRONE_BUILD_NUMBER", "CI_PIPELINE_NUMBER", "CI_BUILD_NUMBER"], |inputs| {
        inputs.build.number.map(|number| number.to_string()).unwrap_or_default()
    }),
    (&["DRONE_BUILD_EVENT", "CI_BUILD_EVENT"], |inputs| match inputs.build.event.kind() {
        EventKind::Manual => "custom".to_owned(),
        other => other.as_str().to_owned(),
    }),
    (&["CI_PIPELINE_EVENT"], |inputs| match inputs.build.event.kind() {
        EventKind::Promote | EventKind::Rollback => "deployment".to_owned(),
        other => other.as_str().to_owned(),
    }),
    (&["DRONE_DEPLOY_TO", "CI_PIPELINE_DEPLOY_TARGET"], |inputs| inputs.build.event.target().unwrap_or_default().to_owned()),
    (&["DRONE_BUILD_PARENT", "CI_PIPELINE_PARENT"], |inputs| {
        inputs.build.event.deployment().map(|deployment| deployment.of.to_string()).unwrap_or_default()
    }),
    (&["DRONE_BUILD_STATUS", "DRONE_STAGE_STATUS", "CI_PIPELINE_STATUS", "CI_BUILD_STATUS"], |inputs| {
        inputs.status_so_far.as_str().to_owned()
    }),
    (&["DRONE_FAILED_STEPS"], |inputs| {
        let steps = inputs.stage.steps.iter().filter(|step| matches!(step.status, Status::Failure | Status::Error));
        steps.map(|step| step.name.as_str()).collect::<Vec<_>>().join(",")
    }),
    (&["DRONE_BUILD_LINK", "CI_PIPELINE_URL", "CI_BUILD_LINK", "CI_STEP_URL"], |inputs| inputs.build_url.to_owned()),
    (&["DRONE_BUILD_CREATED", "CI_PIPELINE_CREATED", "CI_BUILD_CREATED"], |inputs| seconds(Some(inputs.build.created_at))),
    (&["DRONE_BUILD_STARTED", "CI_PIPELINE_STARTED", "CI_BUILD_STARTED"], |inputs| {
        seconds(inputs.build.started_at.or(Some(inputs.build.created_at)))
    }),
    // A build that runs has no end: both servers set the time at which the step starts.
    (&["DRONE_BUILD_FINISHED", "DRONE_STAGE_FINISHED", "CI_BUILD_FINISHED", "CI_STEP_STARTED"], |inputs| {
        seconds(inputs.step.started_at)
    }),
    (&["DRONE_STAGE_STARTED"], |inputs| seconds(inputs.stage.started_at)),
    (&["DRONE_STAGE_NAME", "CI_WORKFLOW_NAME"], |inputs| inputs.stage.pipeline.name.clone()),
    (&["DRONE_STAGE_NUMBER", "CI_WORKFLOW_NUMBER"], |inputs| inputs.stage.number.to_string()),
    (&["DRONE_STAGE_KIND"], |_| "pipeline".to_owned()),
    (&["DRONE_STAGE_TYPE"], |_| "docker".to_owned()),
    (&["DRONE_STAGE_OS"], |_| "linux".to_owned()),
    (&["DRONE_STEP_NAME", "CI_STEP_NAME"], |inputs| inputs.step.name.clone()),
    (&["DRONE_STEP_NUMBER", "CI_STEP_NUMBER"], |inputs| inputs.step.number.to_string()),
    (&["CI_STEP_TYPE"], |_| "plugin".to_owned()),
    (&["DRONE_WORKSPACE", "DRONE_WORKSPACE_BASE", "CI_WORKSPACE"], |inputs| workspace(inputs).to_owned()),
    (&["DRONE_SYSTEM_HOST", "DRONE_SYSTEM_HOSTNAME", "CI_SYSTEM_HOST"], |inputs| {
        server(inputs.build_url).map(|(_, host)| host.to_owned()).unwrap_or_default()
    }),
    (&["DRONE_SYSTEM_PROTO"], |inputs| server(inputs.build_url).map(|(scheme, _)| scheme.to_owned()).unwrap_or_default()),
    (&["CI_SYSTEM_URL"], |inputs| {
        server(inputs.build_url).map(|(scheme, host)| format!("{scheme}://{host}")).unwrap_or_default()
    }),
    (&["DRONE_SYSTEM_VERSION", "CI_SYSTEM_VERSION"], |_| env!("CARGO_PKG_VERSION").to_owned()),
    (&["CI_SYSTEM_NAME"], |_| "beespace".to_owned()),
    (&["CI_FORGE_TYPE"], |_| "gogs".to_owned()),
    (&["CI_FORGE_URL"], |inputs| {
        let repository = &inputs.build.event.repository;
        repository.html_url.strip_suffix(&format!("/{}", repository.name)).unwrap_or_default().to_owned()
    }),
    (&["DRONE_SEMVER"], |inputs| semver(inputs).map(|version| version.to_string()).unwrap_or_default()),
    (&["DRONE_SEMVER_SHORT"], |inputs| {
        semver(inputs).map(|version| format!("{}.{}.{}", version.major, version.minor, version.patch)).unwrap_or_default()
    }),
    (&["DRONE_SEMVER_MAJOR"], |inputs| semver(inputs).map(|version| version.major.to_string()).unwrap_or_default()),
    (&["DRONE_SEMVER_MINOR"], |inputs| semver(inputs).map(|version| version.minor.to_string()).unwrap_or_default()),
    (&["DRONE_SEMVER_PATCH"], |inputs| semver(inputs).map(|version| version.patch.to_string()).unwrap_or_default()),
    (&["DRONE_SEMVER_PRERELEASE"], |inputs| semver(inputs).map(|version| version.pre.to_string()).unwrap_or_default()),
    (&["DRONE_SEMVER_BUILD"], |inputs| semver(inputs).map(|version| version.build.to_string()).unwrap_or_default()),
    (&["DRONE_SEMVER_ERROR"], |inputs| {
        let error = |tag| parse_tag(tag).err().map(|error| error.to_string());
        inputs.build.event.tag().and_then(error).unwrap_or_default()
    }),
];

/// The variables of a step that uses its image as a plugin.
pub fn variables(inputs: &Inputs<'_>) -> impl Iterator<Item = (String, String)> {
    VARIABLES.iter().flat_map(|(names, value)| {
        let value = to_env_value(value(inputs));
        let names: &[&str] = if value.is_empty() { &[] } else { names };
        names.iter().map(move |name| ((*name).to_owned(), value.clone()))
    })
}

/// Scheme and host of the server.
fn server(build_url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = build_url.split_once("://")?;
    Some((scheme, rest.split('/').next().unwrap_or_default()))
}

/// The version that the tag names, with or without a leading `v`.
fn semver(inputs: &Inputs<'_>) -> Option<Version> {
    parse_tag(inputs.build.event.tag()?).ok()
}

fn parse_tag(tag: &str) -> Result<Version, semver::Error> {
    Version::parse(tag.strip_prefix('v').unwrap_or(tag))
}
