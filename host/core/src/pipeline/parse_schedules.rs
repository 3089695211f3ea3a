//! Parser for `schedules`.

use std::collections::BTreeSet;

use super::decode::Reader;
use super::diagnostics::quote;
use super::keywords::SCHEDULE;
use super::params::Param;
use super::spans::YamlPath;
use super::yaml::{MapEntry, Node, Value};
use super::{Conditions, When};
use crate::event::{EventKind, GivenParams};
use crate::schedule::{DEFAULT_ZONE, InvalidTimetable, MAX_SCHEDULES, Schedule, Timetable, is_schedule_name};

/// The params of a pipeline.
type Params = std::collections::BTreeMap<String, Param>;

impl Reader {
    /// The schedules of a pipeline with these params and this `when`.
    pub(super) fn schedules(&mut self, entry: &MapEntry, params: &Params, when: Option<&When>, path: &YamlPath) -> Vec<Schedule> {
        let Value::List(items) = &entry.value.value else {
            let help = "write `- { name: nightly, cron: \"0 3 * * *\" }`";
            self.wrong_type_with_help(&entry.value, "`schedules` to be a list of schedules", help);
            return Vec::new();
        };
        let path = path.child("schedules");
        path.record(&mut self.spans, entry.value.span);
        if items.len() > MAX_SCHEDULES {
            let message = format!("a repository has at most {MAX_SCHEDULES} schedules");
            self.diagnostics.add("too-large", entry.value.span, message);
            return Vec::new();
        }
        if !items.is_empty() && !runs_by_schedule(when) {
            let message =
                "the pipeline has `schedules`, but its `when` does not name the event `cron`, so they would run nothing";
            self.diagnostics.add_with_help("conflict", entry.key_span, message, "add `when: { event: [push, cron] }`");
        }
        let mut names = BTreeSet::new();
        let mut schedules = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = path.child(index);
            path.record(&mut self.spans, item.span);
            let Some(schedule) = self.schedule(item, params) else { continue };
            if !names.insert(schedule.name.clone()) {
                self.diagnostics.add("duplicate-name", item.span, format!("two schedules are named {}", quote(&schedule.name)));
            }
            schedules.push(schedule);
        }
        schedules
    }

    fn schedule(&mut self, node: &Node, params: &Params) -> Option<Schedule> {
        let fields = self.fields(node, "a schedule to be a map with `name` and `cron`", &SCHEDULE)?;
        let mut required = |key: &str| {
            let entry = fields.get(key);
            if entry.is_none() && !fields.has_typo_of(key) {
                self.diagnostics.add("missing-key", node.span, format!("the schedule has no `{key}`"));
            }
            entry
        };
        let (name, cron) = (required("name"), required("cron"));
        let name = name.and_then(|entry| self.schedule_name(&entry.value));
        let cron_text = cron.and_then(|entry| self.text(&entry.value, "`cron` to be text such as `0 3 * * *`"));
        let zone = fields.get("zone");
        let zone_text = zone.map_or(Some(DEFAULT_ZONE.to_owned()), |entry| self.text(&entry.value, "`zone` to be a time zone"));
        let given = fields.get("params").map_or(Some(GivenParams::new()), |entry| self.given_params(entry, params));
        let (cron_text, zone_text) = (cron_text?, zone_text?);
        if let Err(error) = Timetable::parse(&cron_text, &zone_text) {
            let place = if matches!(error, InvalidTimetable::Zone(_)) { zone } else { cron };
            self.diagnostics.add("bad-value", place.map_or(node.span, |entry| entry.value.span), error.to_string());
        }
        Some(Schedule { name: name?, cron: cron_text, zone: zone_text, branch: None, params: given?, enabled: true })
    }

    fn schedule_name(&mut self, node: &Node) -> Option<String> {
        let name = self.text(node, "`name` to be text")?;
        if !is_schedule_name(&name) {
            let message = format!("{} is not a valid name of a schedule", quote(&name));
            let help = "a name has 1 to 100 letters, digits, `.`, `_` and `-`";
            self.diagnostics.add_with_help("bad-value", node.span, message, help);
            return None;
        }
        Some(name)
    }

    /// The values that a schedule gives to the params of its pipeline.
    fn given_params(&mut self, entry: &MapEntry, params: &Params) -> Option<GivenParams> {
        let Value::Map(entries) = &entry.value.value else {
            self.wrong_type_with_help(&entry.value, "`params` to be a map of names to values", "write `NAME: value`");
            return None;
        };
        let mut given = GivenParams::new();
        for value in entries {
            let Value::Scalar(scalar) = &value.value.value else {
                self.wrong_type(&value.value, "the value of a param to be text");
                continue;
            };
            match params.get(&value.key).map(|param| param.kind.check(&scalar.text)) {
                Some(Ok(())) => {}
                Some(Err(problem)) => {
                    self.diagnostics.add("bad-value", value.value.span, format!("{} {problem}", quote(&value.key)));
                }
                None => {
                    let message = format!("the pipeline has no param {}", quote(&value.key));
                    self.diagnostics.add_with_help("bad-value", value.key_span, message, "add it to `params` of the pipeline");
                }
            }
            given.insert(value.key.clone(), scalar.text.clone());
        }
        Some(given)
    }
}

/// Whether a `when` lets a scheduled build run.
fn runs_by_schedule(when: Option<&When>) -> bool {
    let runs = |conditions: &Conditions| match &conditions.event {
        Some(choice) if choice.include.is_empty() => !choice.exclude.contains(&EventKind::Cron),
        Some(choice) => choice.include.contains(&EventKind::Cron),
        None => conditions.cron.is_some(),
    };
    when.is_some_and(|When(alternatives)| alternatives.iter().any(runs))
}
