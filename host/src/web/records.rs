//! A list of records that an administrator can look through and retry: deliveries and notices.

use askama::Template;

use super::ROWS_PER_PAGE;
use super::build_row::FilterChip;
use super::callout::Callout;
use super::layout::Layout;
use crate::html::Html;
use crate::urls;

/// The contents of the page.
#[derive(Template)]
#[template(path = "records.html")]
pub(super) struct RecordsPage {
    pub(super) layout: Layout,
    /// The noun: `Deliveries`.
    pub(super) heading: &'static str,
    /// Path of the list.
    pub(super) href: String,
    pub(super) chips: Vec<FilterChip>,
    pub(super) callouts: Vec<Callout>,
    pub(super) rows: Vec<RecordRow>,
    pub(super) older: Option<String>,
    pub(super) empty: EmptyRecords,
}

/// The text of a list without records. In `text`, backticks enclose code.
pub(super) struct EmptyRecords {
    pub(super) title: &'static str,
    pub(super) text: &'static str,
}

/// One record.
pub(super) struct RecordRow {
    pub(super) id: String,
    pub(super) state: String,
    /// Status name that selects colour and icon.
    pub(super) tone: &'static str,
    /// The subject of the record, with the path of its page.
    pub(super) name: String,
    pub(super) href: Option<String>,
    /// Its kind, then further facts.
    pub(super) kind: String,
    pub(super) facts: Vec<String>,
    pub(super) why: Option<String>,
    pub(super) at: Html,
    pub(super) may_retry: bool,
}

/// The text of a list whose filter matches nothing.
pub(super) const NO_MATCH: EmptyRecords =
    EmptyRecords { title: "Nothing has this status", text: "Choose All to see everything." };

/// A filter link for all records and for each status: its name, and its label.
pub(super) fn filter_chips(href: &str, chosen: Option<&str>, statuses: &[(&'static str, &'static str)]) -> Vec<FilterChip> {
    let all = FilterChip { href: href.to_owned(), label: "All", current: chosen.is_none() };
    let one = |(name, label): &(&'static str, &'static str)| FilterChip {
        href: format!("{href}?status={name}"),
        label,
        current: chosen == Some(*name),
    };
    std::iter::once(all).chain(statuses.iter().map(one)).collect()
}

/// One page of a list that was read with one row more, and the link to the next page if there is one. `status` is the name of the
/// list's filter.
pub(super) fn paginate<T>(
    mut rows: Vec<T>,
    href: &str,
    status: Option<&str>,
    id: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let has_more = rows.len() > ROWS_PER_PAGE;
    rows.truncate(ROWS_PER_PAGE);
    let status = status.map_or_else(String::new, |status| format!("status={status}&"));
    let older = rows.last().filter(|_| has_more).map(|last| format!("{href}?{status}after={}", urls::encode(&id(last))));
    (rows, older)
}
