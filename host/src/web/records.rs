//! A list of records that an administrator can look through and retry: deliveries and notices.

use askama::Template;

use super::callout::Callout;
use super::layout::Layout;
use super::{ROWS_PER_PAGE, build_row};
use crate::html::Html;
use crate::store::status_filter::StatusFilter;

/// The contents of the page.
#[derive(Template)]
#[template(path = "records.html")]
pub(super) struct RecordsPage {
    pub(super) layout: Layout,
    /// The noun: `Deliveries`.
    pub(super) heading: &'static str,
    /// Path of the list.
    pub(super) href: String,
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

/// One page of a list that was read with one row more, and the link to the next page if there is one.
pub(super) fn paginate<T>(mut rows: Vec<T>, href: &str, id: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
    let has_more = rows.len() > ROWS_PER_PAGE;
    rows.truncate(ROWS_PER_PAGE);
    let older = rows.last().filter(|_| has_more).map(|last| build_row::older_href(href, StatusFilter::All, &id(last)));
    (rows, older)
}
