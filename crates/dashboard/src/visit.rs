//! One request: who sent it, from where, and what they may do.

use std::future::Future;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::header::ACCEPT;
use axum::http::request::Parts;
use reveille::Result;
use reveille::admin::{Admin, Rights};

use crate::access::{Access, Right, Viewer};
use crate::draw::shell::Section;
use crate::guard::Refusal;
use crate::once;
use crate::readings::{Age, Reading};
use crate::shared::Shared;

/// The way by which visitors change things, as it is recorded.
pub const SOURCE: &str = "dashboard";
/// The longest name that can be recorded, in characters.
const LONGEST_ACTOR: usize = 128;

/// A request that has passed the guard.
#[derive(Clone)]
pub struct Visit {
    pub shared: Arc<Shared>,
    pub viewer: Viewer,
    /// The name of the database, which stands on every page.
    pub database: String,
    /// The rights of the visitor that the database's role also has.
    pub access: Access,
    /// What is read-only about the dashboard, if anything is.
    pub why_read_only: Option<&'static str>,
    /// What is wrong, if the database does not answer.
    pub trouble: Option<String>,
    /// The relative path from this page to the dashboard's first page: empty, or it ends with a slash.
    pub root: String,
    /// The last part of the path under which the application has the dashboard, `jobs` of `/ops/jobs`; `None` if the
    /// dashboard has the application's first page.
    pub mount: Option<String>,
    /// The name of the page after its path, such as `?state=dead`, without the question mark.
    pub query: String,
    pub age: Age,
    /// The name of the forms of this page that are acted on once.
    pub once: String,
    /// True if the request asks for the stream of a page.
    pub is_stream: bool,
}

impl Visit {
    pub fn may(&self, right: Right) -> bool {
        self.access.allows(right)
    }

    /// # Errors
    /// A refusal, unless the visitor has the right.
    pub fn must(&self, right: Right) -> std::result::Result<(), Refusal> {
        match (self.may(right), &self.trouble) {
            (true, _) => Ok(()),
            (false, Some(trouble)) => Err(Refusal::unavailable(format!("Nothing was changed: {trouble}"))),
            (false, None) => Err(Refusal::forbidden(match self.why_read_only {
                Some(why) => format!("Nothing was changed: {why}."),
                None => "You may not do this. Nothing was changed.".to_owned(),
            })),
        }
    }

    /// Returns the address of a page from this page: `to("jobs?state=dead")`.
    pub fn to(&self, page: &str) -> String {
        match (page.is_empty() || page.starts_with('?'), &self.mount) {
            // An axum application serves the first page at `/ops/jobs`, and need not serve it at `/ops/jobs/`.
            (true, Some(mount)) => format!("{}../{mount}{page}", self.root),
            (true, None) if self.root.is_empty() => format!("./{page}"),
            _ => format!("{}{page}", self.root),
        }
    }

    /// Returns true if the visitor may see the pages of this entry of the navigation.
    pub fn sees_section(&self, section: Section) -> bool {
        match section {
            Section::Enqueue => self.may(Right::Enqueue),
            // A workflow may have jobs of any queue.
            Section::Workflows => self.viewer.queues.is_none(),
            _ => true,
        }
    }

    /// Returns the value of a parameter of the page's address; `None` if it is missing or empty.
    pub fn param(&self, name: &str) -> Option<String> {
        let value = form_urlencoded::parse(self.query.as_bytes()).find(|(known, _)| known == name)?.1;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Returns the value of a parameter as it is, for names that may begin or end with blanks.
    pub fn name_in(&self, name: &str) -> Option<String> {
        let value = form_urlencoded::parse(self.query.as_bytes()).find(|(known, _)| known == name)?.1;
        Some(value.into_owned()).filter(|value| !value.is_empty())
    }

    /// Returns the text that a form's answer has left for this page. It is signed, so that no link can show a text.
    pub fn notice(&self) -> Option<String> {
        self.text_left("notice")
    }

    /// Returns what is wrong with a form of this page that was sent.
    pub fn wrong(&self) -> Option<String> {
        self.text_left("wrong")
    }

    fn text_left(&self, name: &str) -> Option<String> {
        let text = self.param(name)?;
        let is_own = self.shared.forms.verify(&self.viewer.name, &format!("{name} {text}"), &self.param("signed")?);
        is_own.then_some(text)
    }

    pub fn admin(&self) -> Admin {
        self.shared.admin.clone()
    }

    /// Returns what changes jobs, queues and workers for this visitor. Each change is recorded with the visitor's name.
    ///
    /// # Errors
    /// A refusal if no name is left of the visitor's name.
    pub fn operator(&self) -> std::result::Result<Admin, Refusal> {
        Ok(self.admin().acting_as(self.actor(), SOURCE)?)
    }

    /// Returns the visitor's name as it is recorded.
    pub fn actor(&self) -> String {
        self.viewer.name.chars().filter(|c| *c != '\0').take(LONGEST_ACTOR).collect()
    }

    /// Reads something for a page. `name` must name everything that the reading depends on.
    pub async fn read<T: Send + Sync + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        name: impl Into<String>,
        read: impl FnOnce(Admin) -> F,
    ) -> Reading<T> {
        self.shared.readings.get(name, self.age, self.shared.statement_timeout, read(self.admin())).await
    }

    /// Returns the visit with what the visitor and the database's role may do now: a database can become a standby or
    /// cease to be one, or come back, while a page is open.
    pub async fn with_rights(mut self) -> Visit {
        // A stream asks as often as a page does, so that it soon tells when the database is away.
        let Visit { shared, .. } = &self;
        let read = shared.admin.clone();
        let rights = async move { read.rights().await };
        let rights = shared.readings.get("rights", Age::Fresh, shared.statement_timeout, rights).await;
        self.trouble = rights.value().err().map(str::to_owned);
        self.database = rights.value().map_or_else(|_| "?".to_owned(), |rights| rights.database.clone());
        // While the database does not answer, nothing can be changed, and a page that reads something says so.
        let rights = rights.value().ok();
        self.why_read_only = match rights {
            _ if self.shared.is_read_only => Some("the dashboard is read-only"),
            Some(rights) if rights.is_standby => Some("the database is a standby, which takes no changes"),
            Some(rights) if !rights.changes_jobs => Some("the dashboard's role may not change jobs"),
            _ => None,
        };
        let of_role = rights.map_or(Access::none().with(Right::See), of_role);
        let of_dashboard = if self.why_read_only.is_some() { Access::read_only() } else { Access::all() };
        self.access = self.viewer.access.and(of_role).and(of_dashboard);
        self
    }

    /// Signs what a form carries.
    pub fn sign(&self, carried: &str) -> String {
        self.shared.forms.sign(&self.viewer.name, carried)
    }
}

impl FromRequestParts<Arc<Shared>> for Visit {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> std::result::Result<Visit, Refusal> {
        let viewer = parts.extensions.get::<Viewer>().cloned();
        let viewer = viewer.ok_or_else(|| Refusal::forbidden("You may not see this dashboard."))?;
        let original = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
        let accepts = parts.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let visit = Visit {
            shared: Arc::clone(shared),
            access: Access::none(),
            viewer,
            why_read_only: None,
            trouble: None,
            database: String::new(),
            root: root(original.path(), parts.uri.path()),
            mount: mount(original.path(), parts.uri.path()),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            age: Age::Fresh,
            once: once::name(),
            is_stream: accepts.starts_with("text/event-stream"),
        };
        Ok(visit.with_rights().await)
    }
}

/// Returns what the database's role may do.
fn of_role(rights: &Rights) -> Access {
    let rights_by_privilege = [
        (rights.reads_payloads, &[Right::SeePayloads][..]),
        (rights.changes_jobs, &[Right::Retry, Right::Cancel, Right::Revive, Right::Purge, Right::Edit]),
        (rights.enqueues, &[Right::Enqueue]),
        (rights.changes_queues && rights.changes_schedules, &[Right::Pause, Right::Settings]),
        (rights.stops_workers, &[Right::StopWorkers]),
    ];
    let granted = rights_by_privilege.into_iter().filter(|(is_granted, _)| *is_granted);
    granted.flat_map(|(_, rights)| rights.iter().copied()).fold(Access::none().with(Right::See), Access::with)
}

/// Returns the relative path from a page to the dashboard's first page.
///
/// `original` is the path as the browser sent it, `inner` is its part within the dashboard. From
/// `/ops/jobs/queues/mail` the way is `../`. From `/ops/jobs`, which has no slash at its end, it is `./jobs/`.
fn root(original: &str, inner: &str) -> String {
    let depth = inner.trim_start_matches('/').matches('/').count();
    let is_first = inner.trim_matches('/').is_empty();
    match original.rsplit('/').next() {
        // With the dot, the last part of the path cannot be taken for a scheme such as `javascript:`.
        Some(last) if is_first && !last.is_empty() => format!("./{last}/"),
        _ => "../".repeat(depth),
    }
}

fn mount(original: &str, inner: &str) -> Option<String> {
    let above = original.strip_suffix(inner).unwrap_or(original).trim_end_matches('/');
    above.rsplit('/').next().filter(|last| !last.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_is_where_the_application_has_it() {
        for (original, inner, last) in [
            ("/", "/", None),
            ("/jobs/7", "/jobs/7", None),
            ("//", "//", None),
            ("/ops/jobs", "/", Some("jobs")),
            ("/ops/jobs/", "/", Some("jobs")),
            ("/ops/jobs/queue/pause", "/queue/pause", Some("jobs")),
        ] {
            assert_eq!(mount(original, inner).as_deref(), last, "{original}");
        }
    }

    #[test]
    fn a_page_finds_the_first_page_wherever_the_dashboard_is() {
        for (original, inner, way) in [
            ("/", "/", ""),
            ("/jobs", "/jobs", ""),
            ("/jobs/7", "/jobs/7", "../"),
            ("/ops/jobs", "/", "./jobs/"),
            ("/javascript:x", "/", "./javascript:x/"),
            ("/ops/jobs/", "/", ""),
            ("/ops/jobs/queues", "/queues", ""),
            ("/ops/jobs/queues/mail", "/queues/mail", "../"),
            ("/ops/jobs/queues/mail/pause", "/queues/mail/pause", "../../"),
        ] {
            assert_eq!(root(original, inner), way, "{original}");
        }
    }
}
