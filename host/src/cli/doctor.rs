//! `beespace doctor`: checks everything that a push needs to become a build, and prints a remedy for each problem.

use beespace_core::sanitize;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, print_stdout, table};
use crate::api::doctor::{Finding, Level};
use crate::urls::API_PREFIX;

/// # Errors
/// [`Failure`] if the server is unreachable or refuses.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let findings: Vec<Finding> = context.client()?.get(&format!("{API_PREFIX}/doctor")).await?;
    if context.output == Output::Json {
        table::print_json(&findings)?;
    } else {
        for finding in &findings {
            let mark = match finding.level {
                Level::Ok => "OK  ",
                Level::Warning => "WARN",
                Level::Problem => "FAIL",
            };
            print_stdout(&format!("{mark}  {}: {}", finding.check, sanitize::line(&finding.detail)))?;
            if let Some(help) = &finding.help {
                print_stdout(&format!("      → {}", sanitize::line(help)))?;
            }
        }
    }
    Ok(if findings.iter().all(|finding| finding.level != Level::Problem) { Exit::Ok } else { Exit::Failed })
}
