//! Rules for a container's image, program, variables and limits.

use super::mount::is_plain_absolute;
use super::{Findings, LocatedContainer, StepBounds};
use crate::image_ref::ImageRef;
use crate::pipeline::{is_reserved_variable, is_user};
use crate::plan::{Network, SecretTarget};
use crate::units::format_size;

/// Linux' limit for one argument or variable (`MAX_ARG_STRLEN`), its name and `=` included.
const MAX_VARIABLE_BYTES: usize = 128 * 1024 - 1;

pub(super) fn check(site: &LocatedContainer<'_>, bounds: &StepBounds, findings: &mut Findings) {
    check_image(site, findings);
    check_program(site, findings);
    check_variables(site, findings);
    check_limits(site, bounds, findings);
    check_host_access(site, findings);
    check_unsupported(site, findings);
}

fn check_image(site: &LocatedContainer<'_>, findings: &mut Findings) {
    let image = &site.container.image;
    if let Err(error) = image.parse::<ImageRef>() {
        let message = format!("{image:?} is not an image reference: {error}");
        findings.add(
            "image",
            site.pointer_to("image"),
            message,
            "Use a reference such as `rust:1.95` or `registry.example/team/tool@sha256:…`",
        );
    }
}

fn check_program(site: &LocatedContainer<'_>, findings: &mut Findings) {
    let container = site.container;
    if container.script.is_some() && (container.entrypoint.is_some() || container.args.is_some()) {
        let message = format!("Container {:?} has both a script and an entrypoint or args", container.id);
        findings.add("script", site.pointer_to("script"), message, "Keep either the script, or the entrypoint and args");
    }
    if container.shell.is_some() && container.script.is_none() {
        let message = format!("Container {:?} has a shell, but no script", container.id);
        findings.add("script", site.pointer_to("shell"), message, "Remove the shell");
    }
    let words = container.entrypoint.iter().chain(&container.args).chain(&container.shell).flatten();
    if words.chain(&container.script).any(|text| text.contains('\0')) {
        let message = format!("Container {:?} has a NUL byte in its script, entrypoint or args", container.id);
        findings.add("nul-byte", site.pointer.clone(), message, "Remove the NUL byte: no program can receive it");
    }
    if let Some(workdir) = &container.workdir
        && !is_plain_absolute(workdir)
    {
        let message = format!("The working directory {workdir:?} must be an absolute path without `.` and `..`");
        findings.add("workdir", site.pointer_to("workdir"), message, "Use an absolute path such as /workspace/web");
    }
    if let Some(user) = &container.user
        && !is_user(user)
    {
        let message = format!("{user:?} is not a valid user");
        findings.add("user", site.pointer_to("user"), message, "Use a name or number, optionally with a group: 1000:1000");
    }
}

fn check_variables(site: &LocatedContainer<'_>, findings: &mut Findings) {
    let container = site.container;
    for (name, value) in &container.env {
        let pointer = site.pointer_to(&format!("env/{}", name.replace('~', "~0").replace('/', "~1")));
        check_variable_name(name, &pointer, findings);
        if value.contains('\0') {
            let message = format!("The value of the variable {name:?} contains a NUL byte");
            findings.add("nul-byte", pointer.clone(), message, "Remove the NUL byte: no program can receive it");
        }
        if name.len() + 1 + value.len() > MAX_VARIABLE_BYTES {
            let message = format!("The variable {name:?} exceeds the 128 KiB that Linux can pass to a program");
            findings.add("variable-too-long", pointer, message, "Move the text into a file of the repository");
        }
    }
    for (number, mount) in container.secrets.iter().enumerate() {
        let SecretTarget::Env(name) = &mount.target else { continue };
        let pointer = site.pointer_to(&format!("secrets/{number}/target"));
        if is_identifier(name) {
            check_variable_name(name, &pointer, findings);
        } else {
            let message = format!("{name:?} is not a valid name for a variable that holds a secret");
            findings.add("variable-name", pointer.clone(), message, "Use letters, digits and `_`, and do not begin with a digit");
        }
        let is_again = container.secrets.iter().take(number).any(|earlier| earlier.target == mount.target);
        if container.env.contains_key(name) || is_again {
            let message = format!("The variable {name:?} is set more than once, and one of its values is a secret");
            findings.add("variable-twice", pointer, message, "Use a separate variable for the secret");
        }
    }
}

/// A name that a shell accepts, because secrets may reach a script by `export`.
fn is_identifier(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

fn check_variable_name(name: &str, pointer: &str, findings: &mut Findings) {
    let is_name = (1..=256).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b'=');
    if !is_name {
        let message = format!("{name:?} is not a valid name for a variable");
        findings.add("variable-name", pointer.to_owned(), message, "Use letters, digits and `_`");
    } else if is_reserved_variable(name) {
        let message = format!("The variable {name} is reserved: Beespace sets it");
        findings.add("variable-name", pointer.to_owned(), message, "Use another name");
    }
}

fn check_limits(site: &LocatedContainer<'_>, bounds: &StepBounds, findings: &mut Findings) {
    let (asked, most) = (&site.container.limits, &bounds.limits);
    let plain = |n: u64| n.to_string();
    let rows: [LimitRow; 4] = [
        ("cpu_millis", asked.cpu_millis.map(u64::from), most.cpu_millis.map(u64::from), plain),
        ("memory_bytes", asked.memory_bytes, most.memory_bytes, format_size),
        ("pids", asked.pids.map(u64::from), most.pids.map(u64::from), plain),
        ("timeout_seconds", asked.timeout_seconds.map(u64::from), most.timeout_seconds.map(u64::from), plain),
    ];
    for (name, asked, most, show) in rows {
        let Some(asked) = asked else { continue };
        let pointer = site.pointer_to(&format!("limits/{name}"));
        // Engines interpret 0 as "no limit".
        if asked == 0 {
            findings.add("limit", pointer, format!("The limit {name} is 0"), "Remove the limit, or use a number above 0");
        } else if let Some(most) = most.filter(|most| asked > *most) {
            let message = format!("The limit {name} is {}; this instance allows at most {}", show(asked), show(most));
            findings.add("limit", pointer, message, "Request less, or ask an administrator to raise the instance's limit");
        }
    }
}

/// Name, requested value, maximum, and the formatter of both values.
type LimitRow = (&'static str, Option<u64>, Option<u64>, fn(u64) -> String);

/// Settings that give a container access to the engine's machine. No pipeline file and no plugin can permit them.
fn check_host_access(site: &LocatedContainer<'_>, findings: &mut Findings) {
    let container = site.container;
    let mut deny = |rule: &str, key: &str, what: &str, remedy: &str| {
        findings.add(rule, site.pointer_to(key), format!("This instance does not allow {what}"), remedy);
    };
    if container.privileged {
        let remedy = "Remove `privileged`; to build images without it, use a tool such as kaniko, buildah or rootless BuildKit";
        deny("privileged", "privileged", "privileged containers", remedy);
    }
    if !container.devices.is_empty() {
        deny("device", "devices", "devices of the engine's machine", "Remove `devices`");
    }
    if container.network == Network::Host {
        let remedy = "Remove `network: host`; the stage's own network reaches other machines, and its steps share `localhost`";
        deny("host-network", "network", "the network of the engine's machine", remedy);
    }
}

fn check_unsupported(site: &LocatedContainer<'_>, findings: &mut Findings) {
    if site.container.service {
        let message = format!("Container {:?} is a service; this version does not support services", site.container.id);
        findings.add("not-yet", site.pointer_to("service"), message, "Start the service from the step's script");
    }
    if site.container.network == Network::EgressAllowList {
        let message = "This version does not support the network `egress_allow_list`".to_owned();
        findings.add("not-yet", site.pointer_to("network"), message, "Use `none` or `build_default`");
    }
}
