//! The options of a dashboard.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::request::Parts;
use reveille::Database;
use reveille::admin::{JobRow, WorkflowRow};
use serde_json::Value;

use crate::access::Viewer;
use crate::guard::hosts::Hosts;
use crate::router;
use crate::shared::Shared;

pub(crate) type Authorize = dyn Fn(&Parts) -> Option<Viewer> + Send + Sync;
pub(crate) type Redact = dyn Fn(&JobRow, Field, &mut Value) + Send + Sync;
pub(crate) type RedactWorkflow = dyn Fn(&WorkflowRow, Field, &mut Value) + Send + Sync;
type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A part of a job that [`Dashboard::redact`] may change before it is shown, or a part of a workflow that
/// [`Dashboard::redact_workflow`] may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// The payload.
    Payload,
    /// The metadata.
    Metadata,
    /// The progress that the handler last reported.
    Progress,
    /// The result of a completed job, or of a workflow.
    Result,
    /// The error of a failed attempt, a string.
    Error,
    /// The value of a durable step, or the payload of an event that the job has waited for.
    Step,
    /// The input of a workflow.
    Input,
}

/// The dashboard of a database, as a router for an axum application.
///
/// ```no_run
/// # async fn example(database: reveille::Database) {
/// use axum::Router;
/// use reveille_dashboard::{Access, Dashboard, Viewer};
///
/// # #[derive(Clone)] struct User { name: String, is_admin: bool }
/// let dashboard = Dashboard::new(database)
///     .hosts(["shop.example.com"])
///     .authorize(|request| {
///         // The application's own login has put the user here, in a layer around the dashboard.
///         let user = request.extensions.get::<User>()?;
///         let access = if user.is_admin { Access::all() } else { Access::read_only() };
///         Some(Viewer::new(&user.name).access(access))
///     });
/// let app: Router = Router::new().nest("/ops/jobs", dashboard.router());
/// # }
/// ```
#[must_use]
pub struct Dashboard {
    database: Database,
    authorize: Box<Authorize>,
    redact: Option<Box<Redact>>,
    redact_workflow: Option<Box<RedactWorkflow>>,
    is_read_only: bool,
    hosts: Hosts,
    label: Option<String>,
    ignored_checks: Vec<String>,
    secret: Option<Vec<u8>>,
    statement_timeout: Duration,
    shutdown: Option<Shutdown>,
}

impl Dashboard {
    /// Returns the dashboard of a database. It shows nothing to anybody before [`authorize`](Dashboard::authorize) is
    /// set.
    pub fn new(database: Database) -> Dashboard {
        Dashboard {
            database,
            authorize: Box::new(|_| None),
            redact: None,
            redact_workflow: None,
            is_read_only: false,
            hosts: Hosts::loopback(),
            label: None,
            ignored_checks: Vec::new(),
            secret: None,
            statement_timeout: Duration::from_secs(2),
            shutdown: None,
        }
    }

    /// Says who sends a request, and what they may do. A request without a [`Viewer`] is answered with status 403.
    ///
    /// The closure is called for each request. It sees the request's extensions, where the application's own login can
    /// leave the user.
    pub fn authorize<V: Into<Option<Viewer>>>(
        mut self,
        authorize: impl Fn(&Parts) -> V + Send + Sync + 'static,
    ) -> Dashboard {
        self.authorize = Box::new(move |request| authorize(request).into());
        self
    }

    /// Refuses every change, whatever [`authorize`](Dashboard::authorize) allows.
    pub fn read_only(mut self, is_read_only: bool) -> Dashboard {
        self.is_read_only = is_read_only;
        self
    }

    /// Changes parts of a job before they are shown, for example to hide addresses.
    ///
    /// The closure is called on the server for the payload, the metadata, the progress, the result, each error and each
    /// step of a job. A part that the closure has changed cannot be edited in the dashboard.
    ///
    /// The inputs and results of workflows are then shown only with [`redact_workflow`](Dashboard::redact_workflow).
    pub fn redact(mut self, redact: impl Fn(&JobRow, Field, &mut Value) + Send + Sync + 'static) -> Dashboard {
        self.redact = Some(Box::new(redact));
        self
    }

    /// Changes the input and the results of a workflow before they are shown: its own result, and those of its jobs on
    /// its page.
    pub fn redact_workflow(
        mut self,
        redact: impl Fn(&WorkflowRow, Field, &mut Value) + Send + Sync + 'static,
    ) -> Dashboard {
        self.redact_workflow = Some(Box::new(redact));
        self
    }

    /// Sets the names of the hosts at which the dashboard is served, such as `ops.example.com`. Without this, it
    /// answers only requests to `localhost`, `127.0.0.1` and `[::1]`, and any other with status 421.
    ///
    /// This keeps a foreign page from reaching the dashboard under a name of its own (DNS rebinding).
    pub fn hosts<S: Into<String>>(mut self, hosts: impl IntoIterator<Item = S>) -> Dashboard {
        self.hosts = self.hosts.and(hosts.into_iter().map(Into::into));
        self
    }

    /// Shows this text on every page, such as `production`.
    pub fn label(mut self, label: impl Into<String>) -> Dashboard {
        self.label = Some(label.into());
        self
    }

    /// Leaves these checks of the doctor out of the overview; see [`CHECKS`](reveille::admin::doctor::CHECKS).
    pub fn ignore_checks<S: Into<String>>(mut self, checks: impl IntoIterator<Item = S>) -> Dashboard {
        self.ignored_checks.extend(checks.into_iter().map(Into::into));
        self
    }

    /// Signs forms with this secret. Without this, each process makes a secret of its own: forms end when it ends, and
    /// several processes behind one address refuse each other's forms.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Dashboard {
        self.secret = Some(secret.into());
        self
    }

    /// Sets the time after which a page gives up a statement and says so. Default: 2 s.
    pub fn statement_timeout(mut self, timeout: Duration) -> Dashboard {
        self.statement_timeout = timeout;
        self
    }

    /// Ends the streams of open pages once this future is ready, so that a graceful shutdown does not wait for them.
    pub fn shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Dashboard {
        self.shutdown = Some(Box::pin(signal));
        self
    }

    /// Returns the router. It works under any path: all its links are relative.
    ///
    /// Call this in a tokio runtime.
    pub fn router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        let mut shared = Shared::new(self.database, self.authorize, self.hosts);
        shared.redact = self.redact;
        shared.redact_workflow = self.redact_workflow;
        shared.is_read_only = self.is_read_only;
        shared.label = self.label;
        shared.ignored_checks = self.ignored_checks;
        shared.statement_timeout = self.statement_timeout;
        if let Some(secret) = self.secret {
            shared.forms = crate::guard::form_token::Forms::new(&secret);
        }
        if let Some(shutdown) = self.shutdown {
            shared.end_streams_after(shutdown);
        }
        router::routes(Arc::new(shared))
    }
}
