//! Reading the metadata of a job in its handler.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::handler::extract::Context;

/// The job's metadata.
impl Context {
    /// The job's metadata; empty if the job has none.
    ///
    /// If one member does not fit a [`Value`], [`member`](Context::member) still reads the others.
    ///
    /// # Errors
    /// Invalid if the metadata is not a JSON object, is nested more than 128 levels deep, or holds a number that
    /// exceeds any `f64`. The table accepts metadata of the last two sorts.
    pub fn metadata(&self) -> Result<Map<String, Value>> {
        let Some(metadata) = &self.job().metadata else { return Ok(Map::new()) };
        metadata.decode().map_err(|error| self.unreadable("metadata", &error))
    }

    /// Decodes one member of the job's metadata; `None` if the metadata has no member of this name.
    ///
    /// Only this member is decoded. A [`RawValue`](serde_json::value::RawValue) holds the member as stored, with all
    /// digits of its numbers.
    ///
    /// ```
    /// # use reveille::{Context, Job};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Report;
    /// # impl Job for Report { const KIND: &'static str = "report"; }
    /// async fn report(_: Report, context: Context) -> reveille::Result<()> {
    ///     let tick: Option<String> = context.member("tick")?;
    ///     // …
    /// #   let _ = tick;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// Invalid if the metadata is not a JSON object, or the member does not decode to the type.
    pub fn member<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(metadata) = &self.job().metadata else { return Ok(None) };
        metadata.member(name).map_err(|error| self.unreadable(&format!("member {name:?} of the metadata"), &error))
    }

    fn unreadable(&self, what: &str, error: &serde_json::Error) -> Error {
        Error::invalid(format!("the {what} of job {} cannot be read: {error}", self.id()))
    }
}
