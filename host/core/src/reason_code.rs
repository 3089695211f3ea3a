//! The codes of reasons: stable words to search for, each with its meaning and its remedy.
//!
//! `docs/reason-codes.md` is generated from this table. A code never changes its meaning; a new cause gets a new code.

use std::fmt;

macro_rules! reason_codes {
    ($($(#[doc = $section:literal])? $variant:ident $code:literal $meaning:literal $remedy:literal;)+) => {
        /// Why something has its status: one code per cause.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ReasonCode {
            $(#[doc = $meaning] $variant,)+
        }

        impl ReasonCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word in rows, the API and the documentation.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The fact, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }

            /// The remedy for a person; empty if there is nothing to do.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy),+ }
            }

            /// The heading under which the documentation lists this code and those after it.
            #[must_use]
            pub const fn section(self) -> Option<&'static str> {
                match self { $(Self::$variant => reason_codes!(@section $($section)?)),+ }
            }
        }
    };
    (@section) => { None };
    (@section $section:literal) => { Some($section) };
}

reason_codes! {
    #[doc = "Deliveries"]
    DeliveryCorrupt "delivery-corrupt" "The stored body of a delivery differs from the signed one."
        "Check the disk of `data.dir`, then redeliver the webhook in Gogs.";
    MalformedPayload "malformed-payload" "The body of a delivery is not a payload that Gogs sends for its event."
        "If this Gogs is newer than Beespace, report it. Otherwise check proxies between Gogs and Beespace.";
    UnknownEvent "unknown-event" "The event header of a delivery does not name a Gogs event."
        "Check proxies between Gogs and Beespace: one of them may change headers.";
    OtherRepository "other-repository" "A delivery, or the stored name of a repository, belongs to another repository in Gogs."
        "After a rename, push again. Otherwise run `beespace repo repair OWNER/NAME`.";
    TestDelivery "test-delivery" "The delivery was sent by Gogs' button \"Test Delivery\"." "";
    EmptyRepository "empty-repository" "The repository has no commit yet." "Push a commit.";
    RefDeleted "ref-deleted" "A branch or tag was deleted, so nothing is built." "";
    DuplicatePush "duplicate-push" "This push is already known." "Run `beespace build restart` to build it again.";
    DuplicateTag "duplicate-tag" "This tag is already built at this commit."
        "Run `beespace build restart` to build it again, or move the tag to another commit.";
    SkipDirective "skip-directive" "The message of the head commit contains `[skip ci]`, `[ci skip]` or `[no ci]`."
        "Push a commit whose message does not contain it.";
    NotABranch "not-a-branch" "The pushed ref is neither a branch nor a tag."
        "Push to a branch or a tag: refs outside `refs/heads/` and `refs/tags/` are not built.";
    NoReleasePipeline "no-release-pipeline" "No pipeline of the commit asks for releases."
        "Add `when: { event: release }` to a pipeline to build releases besides their tags.";
    DuplicateHead "duplicate-head" "The head of the pull request is already built."
        "Run `beespace build restart` to build it again, or push a new commit.";
    NoClosedPipeline "no-closed-pipeline" "No pipeline of the commit asks for closed pull requests."
        "Add `when: { event: pull_request_closed }` to a pipeline to build them.";
    Superseded "superseded" "A newer commit of the pull request is built instead." "";
    PullRequestClosed "pull-request-closed" "The pull request was closed while its build waited." "";
    BranchCreated "branch-created" "A branch was created; its push arrives as a delivery of its own." "";
    NothingToBuild "nothing-to-build" "The event does not change the sources." "";
    DeadLetter "dead-letter" "All attempts failed, and the row is not retried automatically."
        "Fix the cause in the reason, then retry it: `beespace delivery retry`, `beespace notice retry` or `beespace build \
         restart`.";

    #[doc = "Source"]
    WaitingForSource "waiting-for-source" "The build waits until its commit is fetched." "";
    WaitingForGogs "waiting-for-gogs" "Gogs is unreachable; the request is retried."
        "Check that Gogs runs and that `gogs.url` is correct as seen from the server.";
    SourceTimeout "source-timeout" "The commit could not be fetched within 24 hours."
        "Fix the cause in the reason, then run `beespace build restart`.";
    RefMoved "ref-moved" "The branch has moved, and its earlier commit can no longer be fetched."
        "The build of the newer commit replaces this one.";
    BranchDeleted "branch-deleted" "The branch was deleted before the commit could be fetched."
        "Push the branch again to build it.";
    TagDeleted "tag-deleted" "The tag was deleted before its commit could be fetched." "Push the tag again to build it.";
    NoSuchRevision "no-such-revision" "Gogs does not have the branch, tag or commit that the build was started for."
        "Check the name, or push it first.";
    NotACommit "not-a-commit" "The tag does not name a commit." "Tag a commit to build it.";
    WaitingForHead "waiting-for-head" "Gogs has not updated the head of the pull request yet." "";
    HeadMissing "head-missing" "Gogs has lost the head of the pull request, and its branch cannot be read."
        "Push to the branch again, or give the token's user read access to its repository.";
    HeadNotConfirmed "head-not-confirmed" "Gogs may not have updated the head of the pull request yet."
        "If a newer commit is missing, push again, or run `beespace build restart` on its build.";
    MergeConflict "merge-conflict" "The pull request cannot be merged into its target."
        "Resolve the conflicts in the listed files, or build the head with `clone: { pull_request: head }`.";
    HttpGitDisabled "http-git-disabled" "Gogs does not serve git over HTTP."
        "Set `DISABLE_HTTP_GIT = false` in the section `[repository]` of Gogs' app.ini, and restart Gogs.";
    RepositoryGone "repository-gone" "Gogs does not know the repository, or the token's user has no access to it."
        "After a rename, push again. Otherwise give the token's user access in Gogs.";
    SourceTooLarge "source-too-large" "A file or list of the commit exceeds a limit."
        "Reduce its size, or ask an administrator to raise the limit.";
    NoSuchFile "no-such-file" "The commit has no such file." "Check the path, including upper and lower case.";
    NotAFile "not-a-file" "The path is a directory, a symbolic link or a submodule, not a file." "Commit a regular file instead.";
    InvalidGlob "invalid-glob" "A glob pattern is invalid." "Check its brackets and braces.";
    SourceFailed "source-failed" "git failed on the server."
        "See the server's log. The server needs git and a writable data directory.";
    SourcesUnreadable "sources-unreadable" "The checkout could not be read." "Check the disk of `data.dir`.";

    #[doc = "Gogs API"]
    TokenRefused "token-refused" "Gogs rejects the server's token."
        "Create a token in Gogs (Your Settings, Applications), write it to `gogs.token_file`, and restart the server.";
    TokenRights "token-rights" "The token's user is not an administrator of the repository."
        "In Gogs, make the user a collaborator with the permission `admin`.";
    NotInGogs "not-in-gogs" "Gogs does not know the repository."
        "Check the name. A private repository must be shared with the token's user.";
    GogsRefused "gogs-refused" "Gogs refused a request." "See Gogs' log.";
    GogsRedirects "gogs-redirects" "Gogs redirects to another address."
        "Set `gogs.url` to the final address (Gogs' `EXTERNAL_URL`).";
    NotTheApi "not-the-api" "The response does not come from the API of Gogs."
        "Check `gogs.url`, and that the token's user may sign in.";
    GogsSetup "gogs-setup" "The HTTP client for Gogs could not be created." "Check `gogs.ca_file`.";
    WebhookNotRemoved "webhook-not-removed" "The repository is disabled, but its webhook may still exist in Gogs."
        "Run `beespace repo disable OWNER/NAME` again when Gogs is reachable.";
    RepositoryNotEnabled "repository-not-enabled" "The repository is not enabled." "Run `beespace repo enable OWNER/NAME`.";
    InvalidRepositoryName "invalid-repository-name" "The name is not of the form `OWNER/NAME`." "";

    #[doc = "Pipeline file"]
    NoPipelineFile "no-pipeline-file" "The commit has no pipeline file."
        "Add `.beespace.yml` to the root of the repository, or files to `.beespace/`.";
    InvalidFile "invalid-file" "The pipeline files have problems, or exclude each other."
        "Run `beespace lint` to check the files before you push.";
    InvalidSchedules "invalid-schedules"
        "The schedules of the pipeline file conflict with those that people set, or with a limit."
        "Rename, remove or change the listed schedules.";
    InvalidParams "invalid-params" "The params of the build do not match `params` of its pipeline file."
        "Start the build again with the listed params.";
    InvalidStepSettings "invalid-step-settings" "`with` of a step does not match the schema of its step type."
        "Correct the listed settings.";
    StepSetting "step-setting" "One setting of a step is invalid." "";
    UnknownStepType "unknown-step-type" "No step type of this name is installed."
        "Use one of the listed step types, or ask an administrator to bind it.";

    #[doc = "Conditions"]
    WhenMismatch "when-mismatch" "`when` does not match." "";
    WhenAlternative "when-alternative" "One alternative of `when` does not match." "";
    WhenEvent "when-event" "The event does not match." "";
    WhenBranch "when-branch" "The branch does not match." "";
    WhenTag "when-tag" "The tag does not match." "";
    WhenRef "when-ref" "The ref does not match." "";
    WhenTarget "when-target" "The target does not match." "";
    WhenCron "when-cron" "The schedule does not match." "";
    WhenPaths "when-paths" "No changed path matches." "";
    WhenPathsUnknown "when-paths-unknown" "The changed paths are unknown, so `paths` counts as matched." "";
    NothingFailed "nothing-failed" "The step or pipeline runs only after a failure, and nothing has failed." "";
    NeedsFailed "needs-failed" "A pipeline that this one needs, directly or through others, did not succeed."
        "Fix the needed pipeline, or give this one `when: { status: [success, failure] }`.";
    EarlierFailure "earlier-failure" "An earlier step did not succeed."
        "Fix the earlier step, or give this one `when: { status: [success, failure] }`.";

    #[doc = "Policies and approvals"]
    Denied "denied" "Policies deny the pipeline or the plan of a step." "Follow the remedy of each listed finding.";
    WaitingForApproval "waiting-for-approval" "A policy requires a person's approval."
        "Run `beespace build approve` or `beespace build decline`.";
    ApprovalDecided "approval-decided" "The approval was decided; the stage waits for capacity." "";
    Approved "approved" "A person has approved; the stage waits for capacity." "";
    DeclinedByPerson "declined-by-person" "A person declined." "";
    CancelledBeforeApproval "cancelled-before-approval"
        "The step was cancelled, so its next plan was not approved."
        "";
    NotApproved "not-approved" "The plan is not approved in its present form." "Restart the build.";
    PipelineNotApproved "pipeline-not-approved" "The pipeline is not approved in its present form." "Restart the build.";

    #[doc = "Planning and running"]
    Capacity "capacity" "The stage waits for a free slot: `[engine] capacity` or `[limits] repository_capacity` is reached." "";
    NoEngine "no-engine" "No engine has the platform or the labels that the pipeline asks for."
        "Change `platform` or `labels`, or ask an administrator to set `[engine] labels`.";
    WaitingForNeeds "waiting-for-needs" "The step or stage waits for those that it needs." "";
    PlanningFailed "planning-failed" "The step has no plan: its step type failed."
        "See the reason. If it names an internal error, report it.";
    PlansTooLarge "plans-too-large" "The plans of all steps of the build are too large together."
        "Reduce the number of steps, or the text in `env` of the pipeline.";
    StepTypeFailed "step-type-failed" "The step type failed after a round." "";
    StepTypeResult "step-type-result" "The message of a step type about its result." "";
    TooManyRounds "too-many-rounds" "The step type requested more rounds than the limit."
        "Report it to the author of the step type.";
    PlanCycle "plan-cycle" "Containers of a plan wait for each other." "Report it to the author of the step type.";
    NotRun "not-run" "No step of the stage ran." "See the reason of the stage.";
    TimeoutLowered "timeout-lowered" "The pipeline's `timeout` is longer than the instance allows."
        "Ask an administrator to raise `[limits] stage_timeout`.";
    LimitLowered "limit-lowered" "A limit of the step is above that of the instance."
        "Ask an administrator to raise `[limits] step_cpu`, `step_memory` or `step_pids`.";
    Retried "retried" "An attempt at the step did not succeed, and `retry` asks for another one."
        "See the log of the attempt.";
    SecretMissing "secret-missing" "The repository has no secret of this name."
        "Run `beespace secret set NAME --repo OWNER/NAME`.";
    SecretOfPlugins "secret-of-plugins" "The pipeline names a secret that only plugins may use."
        "Set it for pipelines with `beespace secret set NAME --repo OWNER/NAME` or `--instance`.";
    SecretUnreadable "secret-unreadable" "The secret cannot be decrypted."
        "Set it again. A new key file cannot decrypt older secrets.";
    SecretTooLarge "secret-too-large" "The secrets of the step are too large to mask." "Use smaller secrets.";
    Cancelling "cancelling" "The build is being cancelled." "";
    Cancelled "cancelled" "A person cancelled the build." "";
    CancelledBySibling "cancelled-by-sibling" "A step with `failure: cancel` failed." "";
    StageTimeout "stage-timeout" "The stage exceeded its timeout."
        "Raise `timeout` of the pipeline, or make the pipeline faster.";
    StepTimeout "step-timeout" "The step exceeded its timeout." "Raise `timeout` of the step, or find out what it waits for.";
    ExitCode "exit-code" "The program exited with a code other than 0." "";
    OutOfMemory "out-of-memory" "The program exceeded its memory limit."
        "Reduce its memory use, or raise `[limits] step_memory`.";
    ImageFailed "image-failed" "The image could not be pulled." "Check the name of the image and the registry.";
    StartFailed "start-failed" "The container could not be started." "";
    ContainerLost "container-lost" "The exit of the container was not observed, because the engine or the server was down."
        "Restart the build.";

    #[doc = "Engine"]
    EngineUnreachable "engine-unreachable" "The container engine does not respond."
        "Check that the engine runs, and that the server's user may open its socket (`[engine] host`).";
    EngineSlow "engine-slow" "The engine did not respond in time."
        "See the engine's log; restart the engine if it hangs. Running steps survive the restart only with `live-restore`.";
    EngineRefused "engine-refused" "The engine refused a request." "See the engine's log.";
    EngineInvalidResponse "engine-invalid-response" "The response is not one of a container engine."
        "Check whether another program listens at `[engine] host`.";
    EngineTooOld "engine-too-old" "The engine's API is too old." "Install Docker 20.10 or newer.";
    EngineTooNew "engine-too-new" "The engine no longer supports Beespace's version of its API."
        "Install a newer Beespace or an older engine.";
    EngineAddress "engine-address" "`[engine] host` is not an address of an engine."
        "Use `unix:///var/run/docker.sock` or `tcp://HOST:PORT`.";
    EngineInstance "engine-instance" "The instance id cannot be part of a container name."
        "Remove the id from the store only if none of its containers run.";
    EnginePauseImageRefused "engine-pause-image-refused"
        "The engine refused to import the image of its pause containers, without which no stage can start."
        "See the engine's log; a rule of the engine, or of a proxy in front of it, may forbid imports.";
    EnginePauseNotReady "engine-pause-not-ready" "The stage's pause container did not become ready." "See the engine's log.";
    EngineNetworksExhausted "engine-networks-exhausted" "No free subnet is left in `[engine] network_pool`."
        "Set `network_pool` to an unused range, or remove unused networks (`docker network prune`).";
    EngineIsolationFailed "engine-isolation-failed" "The network isolation rules could not be installed."
        "Enable `CONFIG_IP_MULTIPLE_TABLES` in the kernel, and allow the pause container the capability `NET_ADMIN`.";
    EngineUnkillable "engine-unkillable" "A container still runs after it was killed." "Restart the engine.";
    EngineOrder "engine-order" "The server called the engine in the wrong order." "This is an internal error: please report it.";

    #[doc = "Server"]
    DiskFull "disk-full" "The disk is full, so stages wait." "Free space under `data.dir`; work resumes by itself.";
    StoreUnavailable "store-unavailable" "The store could not be read or written." "See `/readyz?verbose` and the server's log.";
    EncryptionFailed "encryption-failed" "A secret could not be encrypted." "See the server's log.";
    LogFailed "log-failed" "The log of a step could not be written." "Check the disk of `data.dir`.";
    NotifierSuspended "notifier-suspended" "The notifier is suspended after repeated failures."
        "Correct the receiver and run `beespace notice retry --notifier NAME`, or correct the binding and restart the server.";
    Internal "internal" "An internal error of the server." "Please report it with the server's log.";
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq<ReasonCode> for String {
    fn eq(&self, code: &ReasonCode) -> bool {
        self == code.as_str()
    }
}

/// The content of `docs/reason-codes.md`.
#[must_use]
pub fn documentation() -> String {
    let mut page = String::from(
        "# Reason codes\n\n\
         Every status that needs an explanation carries a reason with a code. Pages, the API and the command line show it.\n\
         Policies add codes of their own: the `rule-id` of a finding. This page is generated from\n\
         `host/core/src/reason_code.rs`.\n",
    );
    for code in ReasonCode::ALL {
        if let Some(section) = code.section() {
            page.push_str(&format!("\n## {section}\n\n| code | meaning | remedy |\n|---|---|---|\n"));
        }
        page.push_str(&format!("| `{code}` | {} | {} |\n", code.meaning(), code.remedy()));
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_unique_and_documented() {
        let words: BTreeSet<_> = ReasonCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), ReasonCode::ALL.len());
        for code in ReasonCode::ALL {
            assert!(code.meaning().ends_with('.'), "{code}");
            assert!(code.as_str().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{code}");
        }
    }

    #[test]
    fn the_page_is_generated_from_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reason-codes.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, documentation()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(page, documentation(), "run `UPDATE=1 cargo test -p beespace-core reason_code`");
    }
}
