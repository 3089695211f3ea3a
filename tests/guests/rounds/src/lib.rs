//! A step type with several rounds. `with: { images: [image, …], rounds: [[script, …], …], mounts: [path, …], clean: script }`:
//!
//! - Each round runs its scripts concurrently, one container for each script.
//! - The containers of a round use the image with the round's number, or the last image if there are fewer images than rounds.
//! - The workspace is mounted at the round's path, or at `/workspace` if there is none.
//! - A cancelled step runs the script of `clean` as its last round.
//!
//! `harm: { plan: HARM, react: HARM }` makes the function `loop` forever, `trap`, `panic`, or `grow` its memory without limit
//! instead.

#[allow(clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "step-plugin" });
}

use bindings::beespace::plugin::exec_types::{Container, Limits, Mount, MountSource, Network, Plan};
use bindings::beespace::plugin::log;
use bindings::beespace::plugin::types::Diagnostic;
use bindings::exports::beespace::plugin::lifecycle;
use bindings::exports::beespace::plugin::step::{self, Directive, Event, Input, Outcome, ResultStatus};
use serde_json::Value;

const WORKSPACE: &str = "/workspace";

struct Plugin;

impl lifecycle::Guest for Plugin {
    fn validate_config(_config: String) -> Result<(), Vec<Diagnostic>> {
        Ok(())
    }
}

impl step::Guest for Plugin {
    fn make_plan(input: Input) -> Result<Plan, Vec<Diagnostic>> {
        let with = params(&input);
        do_harm(&with, "plan");
        Ok(round(&with, 0))
    }

    fn react(input: Input, state: Vec<u8>, event: Event) -> Result<Directive, String> {
        let with = params(&input);
        do_harm(&with, "react");
        let done =
            |status| Directive::Done(Outcome { status, outputs: "{}".into(), findings: Vec::new(), message: String::new() });
        let Event::Exited(exits) = event else {
            return Ok(match with.get("clean").and_then(Value::as_str) {
                Some(script) => Directive::Run(plan(image(&with, 0), WORKSPACE, &[script], Vec::new())),
                // A step type may report success after a cancellation; the host must not believe it.
                None => done(ResultStatus::Success),
            });
        };
        if exits.iter().any(|exit| exit.code != Some(0)) {
            return Ok(done(ResultStatus::Failure));
        }
        let next = usize::from(state.first().copied().unwrap_or_default()) + 1;
        let is_last = next >= list(&with, "rounds").len();
        Ok(if is_last { done(ResultStatus::Success) } else { Directive::Run(round(&with, next)) })
    }
}

#[expect(clippy::panic, reason = "a guest that panics is one of the harms")]
fn do_harm(with: &Value, function: &str) {
    match with.get("harm").and_then(|harm| harm.get(function)).and_then(Value::as_str) {
        Some("loop") => loop {
            std::hint::black_box(());
        },
        Some("grow") => {
            let mut kept = Vec::new();
            loop {
                kept.push(std::hint::black_box(vec![7_u8; 1 << 20]));
            }
        }
        Some("panic") => {
            std::panic::set_hook(Box::new(|panic| log::emit(log::Level::Error, &panic.to_string(), &[])));
            panic!("the hive is empty");
        }
        Some(_) => std::process::abort(),
        None => {}
    }
}

fn params(input: &Input) -> Value {
    serde_json::from_str(&input.params).unwrap_or_default()
}

fn round(with: &Value, number: usize) -> Plan {
    let scripts = list(with, "rounds").get(number).and_then(Value::as_array);
    let scripts: Vec<&str> = scripts.into_iter().flatten().filter_map(Value::as_str).collect();
    let mount = list(with, "mounts").get(number).and_then(Value::as_str).unwrap_or(WORKSPACE);
    plan(image(with, number), mount, &scripts, vec![u8::try_from(number).unwrap_or(u8::MAX)])
}

fn list<'a>(with: &'a Value, key: &str) -> &'a [Value] {
    with.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn image(with: &Value, number: usize) -> &str {
    let images = list(with, "images");
    images.get(number).or(images.last()).and_then(Value::as_str).unwrap_or_default()
}

fn plan(image: &str, mount: &str, scripts: &[&str], state: Vec<u8>) -> Plan {
    let containers = (0..).zip(scripts).map(|(number, script)| container(image, mount, number, script)).collect();
    Plan { containers, artifacts: Vec::new(), summary: String::new(), state }
}

fn container(image: &str, mount: &str, number: u32, script: &str) -> Container {
    Container {
        id: format!("c{number}"),
        image: image.to_owned(),
        entrypoint: None,
        args: None,
        script: Some(script.to_owned()),
        env: Vec::new(),
        workdir: None,
        user: None,
        mounts: vec![Mount { source: MountSource::Workspace, path: mount.to_owned(), read_only: false }],
        secrets: Vec::new(),
        limits: Limits { cpu_millis: None, memory_bytes: None, pids: None, timeout_seconds: None },
        network: Network::BuildDefault,
        needs: Vec::new(),
        service: false,
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Plugin with_types_in bindings);
