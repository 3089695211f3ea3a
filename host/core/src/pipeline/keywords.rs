//! The keywords of the pipeline file: supported ones, planned ones, and keywords of other CI servers with advice.

/// The keywords of one kind of map.
#[derive(Debug)]
pub(super) struct Keywords {
    /// Where the keywords occur, for messages: `in a step`.
    pub(super) location: &'static str,
    pub(super) known: &'static [&'static str],
    /// Keywords that are part of the format but not supported yet. They are refused by name, never ignored.
    pub(super) planned: &'static [&'static str],
    pub(super) foreign: &'static [ForeignKeyword],
}

impl Keywords {
    /// Where a key occurs that belongs to a step but was found in a pipeline, or the other way round: `in a step`.
    pub(super) fn other_place_of(&self, key: &str) -> Option<&'static str> {
        let other = match self.location {
            IN_PIPELINE => &STEP,
            IN_STEP => &PIPELINE,
            _ => return None,
        };
        other.known.iter().chain(other.planned).any(|known| *known == key).then_some(other.location)
    }
}

const IN_PIPELINE: &str = "in a pipeline";
const IN_STEP: &str = "in a step";

/// A keyword of another CI server.
#[derive(Debug)]
pub(super) struct ForeignKeyword {
    pub(super) keyword: &'static str,
    pub(super) origin: &'static str,
    /// The equivalent in Beespace; becomes the help of the diagnostic.
    pub(super) advice: &'static str,
}

const fn foreign(word: &'static str, of: &'static str, advice: &'static str) -> ForeignKeyword {
    ForeignKeyword { keyword: word, origin: of, advice }
}

pub(super) const PIPELINE: Keywords = Keywords {
    location: IN_PIPELINE,
    known: &[
        "name",
        "when",
        "needs",
        "matrix",
        "env",
        "timeout",
        "clone",
        "params",
        "schedules",
        "steps",
        "version",
        "platform",
        "labels",
        "workspace",
    ],
    planned: &["concurrency", "volumes", "services"],
    foreign: &[
        foreign("kind", "Drone", "remove `kind`: a Beespace file contains only pipelines"),
        foreign("type", "Drone", "remove `type`: every pipeline runs in containers"),
        foreign("trigger", "Drone", "use `when`"),
        foreign("environment", "Drone", "use `env`"),
        foreign("depends_on", "Drone", "use `needs`"),
        foreign("node", "Drone", "use `labels`"),
        foreign(
            "image_pull_secrets",
            "Drone",
            "registry credentials are not supported yet: use images that can be pulled without them",
        ),
        foreign("skip_clone", "Woodpecker", "use `clone: false`"),
        foreign("pipeline", "Woodpecker", "use `steps`, a list"),
        foreign("branches", "Woodpecker", "use `when: { branch: … }`"),
        foreign("strategy", "GitHub Actions", "use `matrix`"),
        foreign("inputs", "GitHub Actions", "use `params`"),
        foreign("variables", "Woodpecker", "use `x-variables`: keys that begin with `x-` may contain anchors"),
        foreign("runs_on", "Woodpecker", "use `when`"),
        foreign("on", "GitHub Actions", "use `when: { event: … }`"),
        foreign("jobs", "GitHub Actions", "write each job as a pipeline with `steps`; `---` divides them"),
        foreign("runs-on", "GitHub Actions", "every step has its own `image`"),
        foreign("stages", "GitLab CI", "use `steps`, and `needs` for their order"),
        foreign("image", "GitLab CI", "every step has its own `image`"),
        foreign("script", "GitLab CI", "every step has its own `run`"),
    ],
};

pub(super) const STEP: Keywords = Keywords {
    location: IN_STEP,
    known: &[
        "name",
        "image",
        "uses",
        "with",
        "run",
        "env",
        "when",
        "needs",
        "timeout",
        "failure",
        "workdir",
        "entrypoint",
        "args",
        "pull",
        "shell",
        "settings",
        "user",
        "limits",
        "network",
        "privileged",
        "devices",
        "tmpfs",
        "retry",
    ],
    planned: &["outputs", "volumes", "mounts", "detach", "dns", "extra_hosts"],
    foreign: &[
        foreign("commands", "Drone", "use `run`"),
        foreign("command", "Drone", "use `args`"),
        foreign("environment", "Drone", "use `env`"),
        foreign("depends_on", "Drone", "use `needs`"),
        foreign("working_dir", "Drone", "use `workdir`"),
        foreign("network_mode", "Drone", "use `network`"),
        foreign("mem_limit", "Drone", "use `limits: { memory: 512MiB }`"),
        foreign("shm_size", "Drone", "use `tmpfs: { /dev/shm: 1GiB }`"),
        foreign("backend_options", "Woodpecker", "use `user` and `limits`"),
        foreign("directory", "Woodpecker", "use `workdir`"),
        foreign("secrets", "Woodpecker", "use `env: { NAME: { from_secret: name } }`"),
        foreign("group", "Woodpecker", "steps with the same `needs` run in parallel"),
        foreign("if", "GitHub Actions", "use `when`"),
        foreign("continue-on-error", "GitHub Actions", "use `failure: ignore`"),
        foreign("timeout-minutes", "GitHub Actions", "use `timeout: 10m`"),
        foreign("working-directory", "GitHub Actions", "use `workdir`"),
        foreign("id", "GitHub Actions", "use `name`"),
        foreign("script", "GitLab CI", "use `run`"),
        foreign("allow_failure", "GitLab CI", "use `failure: ignore`"),
        foreign("rules", "GitLab CI", "use `when`"),
    ],
};

pub(super) const WHEN: Keywords = Keywords {
    location: "in a `when`",
    known: &["event", "branch", "tag", "ref", "paths", "target", "cron", "status"],
    planned: &["matrix", "repo", "author", "platform"],
    foreign: &[
        foreign("path", "Woodpecker", "use `paths`"),
        foreign(
            "evaluate",
            "Woodpecker",
            "the conditions are `event`, `branch`, `tag`, `ref`, `paths`, `target`, `cron` and `status`",
        ),
        foreign("instance", "Drone", "a file belongs to one instance: remove it"),
        foreign("branches", "GitHub Actions", "use `branch`"),
    ],
};

pub(super) const CHOICE: Keywords =
    Keywords { location: "in a condition", known: &["include", "exclude"], planned: &[], foreign: &[] };

pub(super) const CLONE: Keywords = Keywords {
    location: "in `clone`",
    known: &["depth", "pull_request"],
    planned: &["submodules", "lfs"],
    foreign: &[
        foreign("disable", "Drone", "use `clone: false`"),
        foreign("retries", "Drone", "the clone is retried automatically: remove it"),
        foreign("skip_verify", "Drone", "certificates are configured on the instance: remove it"),
        foreign("git", "Woodpecker", "the host runs the clone step: use `depth` directly"),
    ],
};

pub(super) const LIMITS: Keywords = Keywords {
    location: "in `limits`",
    known: &["cpu", "memory", "pids"],
    planned: &[],
    foreign: &[
        foreign("cpus", "Docker Compose", "use `cpu`"),
        foreign("mem", "another CI server", "use `memory`"),
        foreign("timeout", "another CI server", "use `timeout` of the step"),
    ],
};

pub(super) const RETRY: Keywords = Keywords {
    location: "in `retry`",
    known: &["max", "on", "backoff"],
    planned: &[],
    foreign: &[
        foreign("when", "GitLab CI", "use `on`"),
        foreign("limit", "Buildkite", "use `max`"),
        foreign("exit_codes", "GitLab CI", "use `on: [failure]`"),
    ],
};

pub(super) const SECRET: Keywords = Keywords {
    location: "in the value of a variable",
    known: &["from_secret"],
    planned: &[],
    foreign: &[foreign("secret", "another CI server", "use `from_secret`")],
};

pub(super) const PARAM: Keywords = Keywords {
    location: "in a param",
    known: &["type", "options", "default", "about"],
    planned: &[],
    foreign: &[
        foreign("description", "GitHub Actions", "use `about`"),
        foreign("required", "GitHub Actions", "remove it: a param without `default` must be given"),
    ],
};

pub(super) const SCHEDULE: Keywords = Keywords {
    location: "in a schedule",
    known: &["name", "cron", "zone", "params"],
    planned: &[],
    foreign: &[
        foreign("schedule", "Woodpecker", "use `cron`"),
        foreign("timezone", "Woodpecker", "use `zone`"),
        foreign(
            "branch",
            "Drone",
            "remove it: a schedule in the file builds the default branch; others are set with `beespace schedule set`",
        ),
    ],
};

pub(super) const MATRIX: Keywords =
    Keywords { location: "in `matrix`", known: &["axes", "exclude", "include"], planned: &[], foreign: &[] };

/// Types of params of other CI servers.
pub(super) const FOREIGN_PARAM_TYPES: &[ForeignKeyword] = &[
    foreign("boolean", "GitHub Actions", "use `bool`"),
    foreign("environment", "GitHub Actions", "use `choice` with `options`"),
];

/// Events of other CI servers.
pub(super) const FOREIGN_EVENTS: &[ForeignKeyword] = &[
    foreign("custom", "Drone", "use `manual`"),
    foreign("deployment", "Woodpecker", "use `promote`"),
    foreign("pull-request", "another CI server", "use `pull_request`"),
    foreign("workflow_dispatch", "GitHub Actions", "use `manual`"),
    foreign("schedule", "GitHub Actions", "use `cron`"),
];

/// Values for `failure` of other CI servers.
pub(super) const FOREIGN_FAILURES: &[ForeignKeyword] = &[
    foreign("always", "Drone", "use `fail`"),
    foreign("fast", "Drone", "use `cancel`"),
    foreign("fail-fast", "Drone", "use `cancel`"),
];

/// Values for `network` of other tools.
pub(super) const FOREIGN_NETWORKS: &[ForeignKeyword] =
    &[foreign("bridge", "Docker", "remove it: a step is in the network of its stage")];

/// Values for `on` in `retry` of other CI servers.
pub(super) const FOREIGN_RETRY_REASONS: &[ForeignKeyword] = &[
    foreign("always", "GitLab CI", "remove `on`: without it every result is tried again"),
    foreign("script_failure", "GitLab CI", "use `failure`"),
    foreign("runner_system_failure", "GitLab CI", "use `error`"),
    foreign("stuck_or_timeout_failure", "GitLab CI", "use `timeout`"),
    foreign("infra", "another CI server", "use `error`"),
];

/// Values for `pull` of other CI servers.
pub(super) const FOREIGN_PULLS: &[ForeignKeyword] = &[
    foreign("if-not-exists", "Drone", "use `if-absent`"),
    foreign("if-not-present", "GitLab CI", "use `if-absent`"),
    foreign("true", "Woodpecker", "use `always`"),
    foreign("false", "Woodpecker", "use `if-absent`"),
];

/// The keywords of every kind of map.
#[cfg(test)]
pub(super) const ALL: &[Keywords] = &[PIPELINE, STEP, WHEN, CHOICE, CLONE, LIMITS, RETRY, SECRET, PARAM, SCHEDULE, MATRIX];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_keyword_is_in_two_tables() {
        for keywords in ALL {
            let foreign = keywords.foreign.iter().map(|foreign| foreign.keyword);
            let mut all: Vec<&str> = keywords.known.iter().chain(keywords.planned).copied().chain(foreign).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "{}", keywords.location);
        }
    }

    #[test]
    fn advice_names_only_supported_keywords_or_states_that_they_are_not_supported() {
        for keywords in [PIPELINE, STEP, WHEN, CLONE, LIMITS, SECRET] {
            for foreign in keywords.foreign {
                let advice = foreign.advice;
                let Some((_, rest)) = advice.split_once("use `").or_else(|| advice.split_once("equivalent is `")) else {
                    continue;
                };
                let meant = rest.split(['`', ':']).next().unwrap();
                let known = keywords.known.iter().chain(PIPELINE.known).chain(STEP.known);
                let is_honest = known.copied().any(|word| word == meant) || foreign.advice.contains("not supported yet");
                assert!(is_honest || meant.starts_with("x-"), "{}: {}", foreign.keyword, foreign.advice);
            }
        }
    }
}
