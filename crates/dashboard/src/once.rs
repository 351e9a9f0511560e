//! A form that is sent twice is acted on once: by a double click, by a reload, or by a proxy that repeats a request.
//!
//! Most changes are harmless when they are made again. These are not: enqueuing a job, running one again, triggering a
//! schedule, and a change of many jobs. Their forms carry a random name, or a seal, which is recorded with the change.

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::Admin;

use crate::guard::Refusal;
use crate::posted::Posted;
use crate::visit::Visit;

/// Draws the hidden field with the random name of a form. A page keeps the name while it is open.
pub fn field(visit: &Visit) -> Markup {
    html! { input type="hidden" name="once" value=(visit.once); }
}

/// Makes a name for the forms of one page.
pub fn name() -> String {
    let mut bytes = [0; 16];
    // Without randomness, no form is valid.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What changes something for one form alone.
pub struct Once {
    pub operator: Admin,
    /// The form's name, as it is recorded.
    request: String,
}

impl Once {
    /// Returns what acts on a form that was sent to `action`, which is a path, and which carries a name of its own.
    ///
    /// # Errors
    /// As [`Visit::operator`]; or a refusal if the form has no name.
    pub fn of(posted: &Posted, action: &str, name: Option<&str>) -> Result<Once, Refusal> {
        let name = name.ok_or_else(|| Refusal::bad_request("The form has no name. Load its page again."))?;
        let visit = &posted.visit;
        let request = visit.shared.forms.request(&visit.viewer.name, &format!("{action} {name}"));
        Ok(Once { operator: visit.operator()?.once(&request)?, request })
    }

    /// Leads to what the form has done before; `None` if it has done nothing.
    ///
    /// # Errors
    /// A refusal if the database does not answer.
    pub async fn before(&self, posted: &Posted) -> Result<Option<Response>, Refusal> {
        let action = self.operator.action_of_request(&self.request).await?;
        Ok(action.map(|action| {
            let notice = "This form was sent before, and was acted on once. This is what it did.";
            posted.done(&format!("actions/{}", action.id), notice)
        }))
    }

    /// Leads to what the form has done before, if this is why nothing was done now.
    ///
    /// # Errors
    /// The error, as a refusal, if it has another reason.
    pub async fn refused(&self, posted: &Posted, error: reveille::Error) -> Result<Response, Refusal> {
        match error.is_repeated() {
            true => self.before(posted).await?.ok_or_else(|| error.into()),
            false => Err(error.into()),
        }
    }
}
