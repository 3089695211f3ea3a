//! The words of the file: those that mean something, those that will, and those that people bring from elsewhere.

/// The words that one kind of map understands.
#[derive(Debug)]
pub(super) struct Keywords {
    /// Where they stand, for messages: `in a step`.
    pub(super) location: &'static str,
    pub(super) known: &'static [&'static str],
    /// Part of the format, not built yet: refused by name, never ignored.
    pub(super) planned: &'static [&'static str],
    pub(super) foreign: &'static [ForeignKeyword],
}

/// A word of another CI server.
#[derive(Debug)]
pub(super) struct ForeignKeyword {
    pub(super) keyword: &'static str,
    pub(super) origin: &'static str,
    /// What to do: a sentence that goes on after "that is Drone's word; ".
    pub(super) advice: &'static str,
}

const fn foreign(word: &'static str, of: &'static str, advice: &'static str) -> ForeignKeyword {
    ForeignKeyword { keyword: word, origin: of, advice }
}

pub(super) const PIPELINE: Keywords = Keywords {
    location: "in a pipeline",
    known: &["name", "when", "env", "timeout", "clone", "steps"],
    planned: &["version", "needs", "concurrency", "platform", "labels", "workspace", "matrix", "volumes", "services"],
    foreign: &[
        foreign("kind", "Drone", "a Beespace file holds pipelines only: leave it out"),
        foreign("type", "Drone", "every pipeline here runs in containers: leave it out"),
        foreign("trigger", "Drone", "here it is `when`"),
        foreign("environment", "Drone", "here it is `env`"),
        foreign("depends_on", "Drone", "a file is one pipeline yet: give its steps `needs`"),
        foreign("node", "Drone", "here it is `labels`, which is not possible yet"),
        foreign(
            "image_pull_secrets",
            "Drone",
            "signing in to a registry is not possible yet: use images that can be pulled without",
        ),
        foreign("skip_clone", "Woodpecker", "here it is `clone: false`"),
        foreign("pipeline", "Woodpecker", "here it is `steps`, a list"),
        foreign("branches", "Woodpecker", "here it is `when: { branch: … }`"),
        foreign("variables", "Woodpecker", "here it is `x-variables`: keys that begin with `x-` may hold anchors"),
        foreign("runs_on", "Woodpecker", "here it is `when`"),
        foreign("on", "GitHub", "here it is `when: { event: … }`"),
        foreign("jobs", "GitHub", "here a file is one pipeline with `steps`"),
        foreign("runs-on", "GitHub", "here every step names its `image`"),
        foreign("stages", "GitLab", "here it is `steps`, and `needs` gives the order"),
        foreign("image", "GitLab", "here every step names its own `image`"),
        foreign("script", "GitLab", "here every step has its own `run`"),
    ],
};

pub(super) const STEP: Keywords = Keywords {
    location: "in a step",
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
    ],
    planned: &[
        "retry",
        "outputs",
        "shell",
        "settings",
        "user",
        "pull",
        "privileged",
        "network",
        "limits",
        "volumes",
        "mounts",
        "detach",
        "dns",
        "extra_hosts",
        "devices",
        "tmpfs",
    ],
    foreign: &[
        foreign("commands", "Drone", "here it is `run`"),
        foreign("command", "Drone", "here it is `args`"),
        foreign("environment", "Drone", "here it is `env`"),
        foreign("depends_on", "Drone", "here it is `needs`"),
        foreign("working_dir", "Drone", "here it is `workdir`"),
        foreign("network_mode", "Drone", "here it is `network`, which is not possible yet"),
        foreign("mem_limit", "Drone", "here it is `limits`, which is not possible yet: the instance has a limit"),
        foreign("directory", "Woodpecker", "here it is `workdir`"),
        foreign("secrets", "Woodpecker", "here it is `env: { NAME: { from_secret: name } }`"),
        foreign("group", "Woodpecker", "here steps that may run at once have the same `needs`"),
        foreign("if", "GitHub", "here it is `when`"),
        foreign("continue-on-error", "GitHub", "here it is `failure: ignore`"),
        foreign("timeout-minutes", "GitHub", "here it is `timeout: 10m`"),
        foreign("working-directory", "GitHub", "here it is `workdir`"),
        foreign("id", "GitHub", "here it is `name`"),
        foreign("script", "GitLab", "here it is `run`"),
        foreign("allow_failure", "GitLab", "here it is `failure: ignore`"),
        foreign("rules", "GitLab", "here it is `when`"),
    ],
};

pub(super) const WHEN: Keywords = Keywords {
    location: "in a `when`",
    known: &["event", "branch", "paths", "status"],
    planned: &["tag", "ref", "target", "cron", "matrix", "repo", "author", "platform"],
    foreign: &[
        foreign("path", "Woodpecker", "here it is `paths`"),
        foreign("evaluate", "Woodpecker", "conditions are `event`, `branch`, `paths` and `status`"),
        foreign("instance", "Drone", "one file serves one instance: leave it out"),
        foreign("branches", "GitHub", "here it is `branch`"),
    ],
};

pub(super) const CHOICE: Keywords =
    Keywords { location: "in a condition", known: &["include", "exclude"], planned: &[], foreign: &[] };

pub(super) const CLONE: Keywords = Keywords {
    location: "in `clone`",
    known: &["depth"],
    planned: &["submodules", "lfs", "pull_request"],
    foreign: &[
        foreign("disable", "Drone", "here it is `clone: false`"),
        foreign("retries", "Drone", "the clone is tried again by itself: leave it out"),
        foreign("skip_verify", "Drone", "certificates are set on the instance: leave it out"),
        foreign("git", "Woodpecker", "the clone is the host's own: give `depth` directly"),
    ],
};

pub(super) const SECRET: Keywords = Keywords {
    location: "in the value of a variable",
    known: &["from_secret"],
    planned: &[],
    foreign: &[foreign("secret", "another server", "here it is `from_secret`")],
};

/// Events as other servers call them.
pub(super) const FOREIGN_EVENTS: &[ForeignKeyword] = &[
    foreign("custom", "Drone", "here it is `manual`"),
    foreign("deployment", "Woodpecker", "here it is `promote`"),
    foreign("pull-request", "another server", "here it is `pull_request`"),
    foreign("workflow_dispatch", "GitHub", "here it is `manual`"),
    foreign("schedule", "GitHub", "here it is `cron`"),
];

/// What a failure does, as other servers call it.
pub(super) const FOREIGN_FAILURES: &[ForeignKeyword] = &[
    foreign("always", "Drone", "here it is `fail`"),
    foreign("fast", "Drone", "here it is `cancel`"),
    foreign("fail-fast", "Drone", "here it is `cancel`"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_in_two_tables() {
        for words in [PIPELINE, STEP, WHEN, CHOICE, CLONE, SECRET] {
            let foreign = words.foreign.iter().map(|foreign| foreign.keyword);
            let mut all: Vec<&str> = words.known.iter().chain(words.planned).copied().chain(foreign).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "{}", words.location);
        }
    }

    #[test]
    fn nobody_is_sent_to_a_word_that_is_not_built_without_being_told() {
        for words in [PIPELINE, STEP, WHEN, CLONE, SECRET] {
            for foreign in words.foreign {
                let Some((_, rest)) = foreign.advice.split_once("here it is `") else { continue };
                let meant = rest.split(['`', ':']).next().unwrap();
                let known = words.known.iter().chain(PIPELINE.known);
                let is_honest = known.copied().any(|word| word == meant) || foreign.advice.contains("not possible yet");
                assert!(is_honest || meant.starts_with("x-"), "{}: {}", foreign.keyword, foreign.advice);
            }
        }
    }
}
