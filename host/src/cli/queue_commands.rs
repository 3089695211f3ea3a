//! The requests that `beespace delivery` and `beespace notice` share: both list, show and retry the rows of one API collection.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::Client;
use super::exit::Failure;
use super::table;
use crate::urls::{API_PREFIX, encode};

/// A collection of the API, such as `/api/v1/deliveries`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Collection<'c> {
    pub(super) client: &'c Client,
    /// Last segment of its path.
    pub(super) name: &'static str,
}

impl Collection<'_> {
    /// The newest `limit` rows, optionally only those with a status.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn list<T: DeserializeOwned>(self, limit: usize, status: Option<&str>) -> Result<Vec<T>, Failure> {
        let status = status.map_or_else(String::new, |status| format!("&status={}", encode(status)));
        self.client.get(&format!("{API_PREFIX}/{}?limit={limit}{status}", self.name)).await
    }

    /// Prints one row as JSON.
    ///
    /// # Errors
    /// As [`Client::get`] and [`table::print_json`].
    pub(super) async fn show<T: DeserializeOwned + Serialize>(self, id: &str) -> Result<(), Failure> {
        table::print_json(&self.client.get::<T>(&self.path(id)).await?)
    }

    /// Queues one row again and returns its new state.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn retry<T: DeserializeOwned>(self, id: &str) -> Result<T, Failure> {
        self.client.post(&format!("{}/retry", self.path(id)), &()).await
    }

    fn path(self, id: &str) -> String {
        format!("{API_PREFIX}/{}/{}", self.name, encode(id))
    }
}
