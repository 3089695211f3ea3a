//! `beespace doctor`: checks everything that a push needs to become a build, and prints a remedy for each problem.

use beespace_core::sanitize;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, print_stderr, print_stdout, table};
use crate::api::doctor::{Finding, Level};
use crate::urls::API_PREFIX;

/// # Errors
/// [`Failure`] if the server is unreachable or refuses.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let findings: Vec<Finding> = client.get(&format!("{API_PREFIX}/doctor")).await?;
    if context.output == Output::Json {
        table::print_json(&findings)?;
    } else {
        for finding in &findings {
            print_stdout(&format!("{}  {}: {}", label(finding.level), finding.check, sanitize::line(&finding.detail)))?;
            if let Some(help) = &finding.help {
                print_stdout(&format!("      → {}", sanitize::line(help)))?;
            }
        }
        print_stderr(&format!("{}: {}", client.url(), summary(&findings)));
    }
    Ok(if count(&findings, Level::Problem) == 0 { Exit::Ok } else { Exit::Failed })
}

fn label(level: Level) -> &'static str {
    match level {
        Level::Ok => "OK  ",
        Level::Warning => "WARN",
        Level::Problem => "FAIL",
    }
}

fn count(findings: &[Finding], level: Level) -> usize {
    findings.iter().filter(|finding| finding.level == level).count()
}

/// `8 checks passed, 1 warning, no problems`.
fn summary(findings: &[Finding]) -> String {
    let counted = |level, one: &str, many: &str| match count(findings, level) {
        0 => format!("no {many}"),
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    let passed = counted(Level::Ok, "check passed", "checks passed");
    format!("{passed}, {}, {}", counted(Level::Warning, "warning", "warnings"), counted(Level::Problem, "problem", "problems"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_every_level() {
        let finding = |level| Finding { check: "gogs".to_owned(), level, detail: String::new(), help: None };
        let findings = [Level::Ok, Level::Problem, Level::Ok].map(finding);
        assert_eq!(summary(&findings), "2 checks passed, no warnings, 1 problem");
    }
}
