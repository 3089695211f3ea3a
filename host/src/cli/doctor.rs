//! `beespace doctor`: everything that must be right for a push to become a build, each finding with its cure.

use beespace_core::visible;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, put, table};
use crate::address::API;
use crate::api::doctor::Finding;

/// # Errors
/// [`Failure`], to be said and exited with.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let findings: Vec<Finding> = context.client()?.get(&format!("{API}/doctor")).await?;
    if context.output == Output::Json {
        table::one(&findings)?;
    } else {
        for finding in &findings {
            let mark = if finding.is_good { "good" } else { "BAD " };
            put(&format!("{mark}  {}: {}", finding.part, visible::line(&finding.detail)))?;
            if let Some(help) = &finding.help {
                put(&format!("      → {}", visible::line(help)))?;
            }
        }
    }
    Ok(if findings.iter().all(|finding| finding.is_good) { Exit::Ok } else { Exit::Failed })
}
