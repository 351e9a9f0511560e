//! Jobs as JSON, for clients that Reveille does not know: the parameter of the SQL function `reveille.enqueue_json`.

use super::Enqueuer;
use crate::database::json::write_job;
use crate::error::{Error, Result};
use crate::job::{Enqueueable, NewJob};

impl NewJob {
    /// Returns the job as JSON, to enqueue it by a client that Reveille does not know, such as an object-relational
    /// mapper. The text is the parameter of one statement, in any transaction of that client:
    /// `select id, existed from reveille.enqueue_json($1::text::jsonb)`.
    ///
    /// Numbers in the payload and the metadata keep all their digits. In a handler, the job's parent is the job that
    /// the handler works. The job passes no middleware: for that, use [`Enqueuer::to_json`]. For many jobs, use
    /// [`to_json_all`].
    ///
    /// ```
    /// use reveille::job::NewJob;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
    /// # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
    ///
    /// let json = NewJob::of(&SendWelcome { user_id: 7 })?.queue("mail").to_json()?;
    /// assert_eq!(json, r#"{"kind":"send_welcome","payload":{"user_id":7},"queue":"mail"}"#);
    /// # Ok::<(), reveille::Error>(())
    /// ```
    ///
    /// # Errors
    /// Invalid if the job cannot be stored.
    pub fn to_json(&self) -> Result<String> {
        Enqueuer::new().to_json(self)
    }
}

/// Returns many jobs as one JSON array, to enqueue them by a client that Reveille does not know. The text is the
/// parameter of one statement: `select place, id, existed from reveille.enqueue_json($1::text::jsonb)`.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
/// # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
/// let jobs: Vec<SendWelcome> = (1..=1000).map(|user_id| SendWelcome { user_id }).collect();
/// let json = reveille::enqueue::to_json_all(&jobs)?;
/// # Ok::<(), reveille::Error>(())
/// ```
///
/// # Errors
/// As in [`NewJob::to_json`].
pub fn to_json_all<'a, J: Enqueueable + 'a>(jobs: impl IntoIterator<Item = &'a J>) -> Result<String> {
    Enqueuer::new().to_json_all(jobs)
}

impl Enqueuer {
    /// Returns a job as JSON, as [`NewJob::to_json`] does, through the middleware.
    ///
    /// # Errors
    /// Refused if a middleware refuses the job; else as in [`NewJob::to_json`].
    pub fn to_json(&self, job: &impl Enqueueable) -> Result<String> {
        let mut json = Vec::new();
        write_job(&self.prepare(job)?, &mut json)?;
        text(json)
    }

    /// Returns many jobs as one JSON array, as [`to_json_all`] does, through the middleware.
    ///
    /// # Errors
    /// Refused if a middleware refuses one of the jobs; else as in [`NewJob::to_json`].
    pub fn to_json_all<'a, J: Enqueueable + 'a>(&self, jobs: impl IntoIterator<Item = &'a J>) -> Result<String> {
        let mut json = vec![b'['];
        for job in jobs {
            if json.len() > 1 {
                json.push(b',');
            }
            write_job(&self.prepare(job)?, &mut json)?;
        }
        json.push(b']');
        text(json)
    }
}

fn text(json: Vec<u8>) -> Result<String> {
    String::from_utf8(json).map_err(|error| Error::invalid(format!("the job is not UTF-8: {error}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::database::json::LARGEST_PAYLOAD;
    use crate::job::{MAX_PAYLOAD, Payload, Priority, UniqueMode, UniqueUntil};

    #[test]
    fn a_job_is_written_with_the_text_of_its_payload_and_without_defaults() {
        let digits = r#"{ "n": 12345678901234567890.0123456789012345 }"#;
        let job = NewJob::new("a \"kind\"", Payload::parse(digits).unwrap());
        assert_eq!(job.to_json().unwrap(), format!(r#"{{"kind":"a \"kind\"","payload":{digits}}}"#));
        let job = NewJob::new("k", Payload::encode(&()).unwrap())
            .queue("q")
            .delay(Duration::from_millis(1500))
            .priority(Priority::Urgent)
            .max_attempts(3)
            .timeout(Duration::from_secs(30))
            .unique_key("u")
            .unique_mode(UniqueMode::Debounce)
            .unique_until(UniqueUntil::Started)
            .key("é")
            .tag("a")
            .parent(7);
        let expected = concat!(
            r#"{"kind":"k","payload":null,"queue":"q","delay":1.5,"priority":0,"max_attempts":3,"timeout":30.0,"#,
            r#""unique_key":"u","unique_mode":"debounce","unique_until":"started","key":"é","tags":["a"],"#,
            r#""parent_id":7}"#
        );
        assert_eq!(job.to_json().unwrap(), expected);
        assert_eq!(to_json_all([&job, &job]).unwrap(), format!("[{expected},{expected}]"));
        assert_eq!(to_json_all::<NewJob>([]).unwrap(), "[]");
    }

    #[test]
    fn a_job_that_cannot_be_stored_is_no_json() {
        let job = NewJob::new("", Payload::encode(&()).unwrap());
        assert!(job.to_json().unwrap_err().is_invalid());
        let large = NewJob::new("k", Payload::encode(&"x".repeat(2 * MAX_PAYLOAD)).unwrap());
        assert!(large.to_json().unwrap_err().is_invalid());
        let json = Enqueuer::new().max_payload(LARGEST_PAYLOAD).to_json(&large).unwrap();
        assert!(json.ends_with(r#","max_payload":8388608}"#));
    }
}
