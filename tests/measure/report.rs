//! Measurements: collected, and printed as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// One measured value.
#[derive(Debug)]
pub(crate) struct Measurement {
    what: &'static str,
    value: f64,
    unit: &'static str,
    /// A positive bound is a maximum; a negative bound is a minimum of its absolute value.
    bound: Option<f64>,
}

#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Measurement>);

impl Report {
    pub(crate) fn at_most(&mut self, what: &'static str, value: f64, unit: &'static str, bound: f64) {
        self.add(Measurement { what, value, unit, bound: Some(bound) });
    }

    pub(crate) fn at_least(&mut self, what: &'static str, value: f64, unit: &'static str, bound: f64) {
        self.add(Measurement { what, value, unit, bound: Some(-bound) });
    }

    pub(crate) fn info(&mut self, what: &'static str, value: f64, unit: &'static str) {
        self.add(Measurement { what, value, unit, bound: None });
    }

    fn add(&mut self, figure: Measurement) {
        eprintln!("{}", figure.line());
        self.0.push(figure);
    }

    pub(crate) fn table(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, figure| {
            let _ = writeln!(text, "{}", figure.line());
            text
        })
    }

    pub(crate) fn json(&self) -> Value {
        self.0
            .iter()
            .map(|figure| {
                let holds = figure.is_within_bound();
                json!({ "what": figure.what, "value": figure.value, "unit": figure.unit, "holds": holds })
            })
            .collect()
    }
}

impl Measurement {
    fn is_within_bound(&self) -> Option<bool> {
        self.bound.map(|bound| if bound > 0.0 { self.value <= bound } else { self.value >= -bound })
    }

    fn line(&self) -> String {
        let bound = self.bound.map_or_else(String::new, |bound| {
            let relation = if bound > 0.0 { "at most" } else { "at least" };
            let missed = if self.is_within_bound() == Some(false) { ", MISSED" } else { "" };
            format!("({relation} {}{missed})", bound.abs())
        });
        format!("{:<58} {:>10.1} {:<6} {bound}", self.what, self.value, self.unit)
    }
}

/// The percentile for `share` (0.5 is the median), in milliseconds.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let place = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len().max(1)) - 1;
    times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}
