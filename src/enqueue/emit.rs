//! Emits events, for which jobs may wait.

use serde::Serialize;

use crate::database::enqueue_on::EnqueueOn;
use crate::enqueue::Enqueuer;
use crate::error::{Error, Result};
use crate::job::{Payload, check_event};

/// The largest payload of an event, in bytes as Postgres writes it.
const LARGEST: usize = 8 * 1024;

/// Emits an event: the jobs that [wait for it](crate::Context::wait_for) are due at once, and jobs that wait for it
/// later go on at once. Returns true for the first emit of a name. Later emits of the name change nothing.
///
/// An event is kept for 30 days, and longer while a job still waits for it. On a transaction, the event exists once the
/// transaction commits. The name has 1 to 512 bytes and does not begin with `reveille:`. The payload is any JSON of up
/// to 8 KiB.
///
/// ```no_run
/// # use serde::Serialize;
/// # #[derive(Serialize)] struct Paid { cents: i64 }
/// # async fn paid(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let tx = client.transaction().await?;
/// tx.execute("update orders set paid = true where id = 7", &[]).await?;
/// reveille::enqueue::emit(&tx, "paid:7", &Paid { cents: 990 }).await?;
/// tx.commit().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Invalid, before anything is sent, if the name or the payload cannot be stored, or the store keeps no events. Else
/// the server's error.
pub async fn emit<E: EnqueueOn>(on: E, event: impl AsRef<str>, payload: &(impl Serialize + ?Sized)) -> Result<bool> {
    Enqueuer::new().emit(on, event, payload).await
}

impl Enqueuer {
    /// Emits an event as [`emit`] does, in the schema of this enqueuer. The payload passes no middleware.
    ///
    /// # Errors
    /// As in [`emit`].
    pub async fn emit<E: EnqueueOn>(
        &self,
        on: E,
        event: impl AsRef<str>,
        payload: &(impl Serialize + ?Sized),
    ) -> Result<bool> {
        let event = event.as_ref();
        check_event(event)?;
        let payload = Payload::encode_as("the event's payload", payload)?;
        let size = payload.written_len();
        if size > LARGEST {
            return Err(Error::invalid(format!(
                "the payload of event {event:?} has {size} bytes, and the limit is {LARGEST}; keep large data \
                 elsewhere and pass a reference"
            )));
        }
        let is_first = on.emit(&self.schema, event, &payload).await?;
        tracing::debug!(name: "event.emitted", target: "reveille::enqueue", event, is_first, "emitted");
        Ok(is_first)
    }
}
