//! A browser without script: it reads pages, and sends the forms that stand on them.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use reveille_dashboard::{Access, Dashboard, Field, Right, Viewer};
use serde_json::Value;
use tower::ServiceExt;

use crate::harness::TestDatabase;

/// The dashboard of a database, as one visitor uses it.
pub struct Browser {
    router: Router,
}

/// An answer: its status, its body, and the page to which it leads.
pub struct Answer {
    pub status: StatusCode,
    pub body: String,
    pub leads_to: String,
}

impl Browser {
    /// Opens the dashboard as a visitor who may do everything.
    pub fn of(database: &TestDatabase) -> Browser {
        Browser::as_viewer(database, Viewer::new("ada").access(Access::all()))
    }

    /// Opens the dashboard as a visitor who may only look.
    pub fn read_only(database: &TestDatabase) -> Browser {
        Browser::as_viewer(database, Viewer::new("eve").access(Access::read_only()))
    }

    /// Opens the dashboard as a visitor who may do everything but this.
    pub fn without(database: &TestDatabase, right: Right) -> Browser {
        Browser::as_viewer(database, Viewer::new("ada").access(Access::all().without(right)))
    }

    /// Opens the dashboard as a visitor who may do everything in some queues.
    pub fn of_queues(database: &TestDatabase, queues: &[&str]) -> Browser {
        Browser::as_viewer(database, Viewer::new("ada").access(Access::all()).queues(queues.iter().copied()))
    }

    pub fn as_viewer(database: &TestDatabase, viewer: Viewer) -> Browser {
        let dashboard = Dashboard::new(database.database.clone()).secret("a secret of the tests");
        Browser { router: dashboard.authorize(move |_| viewer.clone()).router() }
    }

    /// Opens the dashboard with a part of each job replaced by the word `hidden`.
    pub fn redacted(database: &TestDatabase, hidden: Field) -> Browser {
        let dashboard = Dashboard::new(database.database.clone()).redact(move |_, field, value| {
            if field == hidden {
                *value = Value::from("hidden");
            }
        });
        Browser { router: dashboard.authorize(|_| Viewer::new("ada").access(Access::all())).router() }
    }

    /// Opens a dashboard that is served elsewhere.
    pub fn at(router: Router) -> Browser {
        Browser { router }
    }

    pub async fn get(&self, page: &str) -> Answer {
        self.send(Request::get(format!("/{page}")).body(Body::empty()).unwrap()).await
    }

    /// Reads a page that must be there.
    pub async fn page(&self, page: &str) -> String {
        let answer = self.get(page).await;
        assert_eq!(answer.status, StatusCode::OK, "{page}: {}", answer.body);
        answer.body
    }

    /// Posts fields as a page of the dashboard's own does.
    pub async fn post(&self, action: &str, fields: &[(String, String)]) -> Answer {
        self.post_from("same-origin", action, fields).await
    }

    pub async fn post_from(&self, site: &str, action: &str, fields: &[(String, String)]) -> Answer {
        let pairs = fields.iter().map(|(name, value)| [encoded(name), encoded(value)].join("="));
        let body = pairs.collect::<Vec<_>>().join("&");
        let request = Request::post(format!("/{action}"))
            .header("sec-fetch-site", site)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    /// Sends the first form of a page that posts to `action`, with these fields filled in.
    pub async fn submit(&self, page: &str, action: &str, filled: &[(&str, &str)]) -> Answer {
        let fields = form(&self.page(page).await, action);
        self.post(action, &with(fields, filled)).await
    }

    /// Checks that the form is refused from another site, without its signature, and of a visitor without the right.
    pub async fn refuses(&self, weak: &Browser, page: &str, action: &str, filled: &[(&str, &str)]) {
        let fields = with(form(&self.page(page).await, action), filled);
        let foreign = self.post_from("cross-site", action, &fields).await;
        assert_eq!(foreign.status, StatusCode::FORBIDDEN, "{action} of another site");
        let unsigned: Vec<_> = fields.iter().filter(|(name, _)| name != "signature").cloned().collect();
        assert_eq!(self.post(action, &unsigned).await.status, StatusCode::FORBIDDEN, "{action} without a signature");
        // The form of one visitor is signed for this visitor alone, so the weak one signs by the same name.
        let refused = weak.post(action, &fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{action} without the right");
        let page = weak.get(page).await.body;
        assert!(!page.contains(&format!("{action}\"")), "{action} stands on a page of a visitor without the right");
    }

    async fn send(&self, mut request: Request<Body>) -> Answer {
        request.headers_mut().insert(header::HOST, "localhost".parse().unwrap());
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let leads_to = answer.headers().get(header::LOCATION).map(|to| to.to_str().unwrap().to_owned());
        let status = answer.status();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        Answer { status, body: String::from_utf8(body.to_vec()).unwrap(), leads_to: leads_to.unwrap_or_default() }
    }
}

impl Answer {
    /// Returns the text that the next page shows.
    pub fn notice(&self) -> String {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.body);
        let notice = self.leads_to.split("notice=").nth(1).unwrap().split('&').next().unwrap();
        let mut text = Vec::new();
        let mut bytes = notice.bytes();
        while let Some(byte) = bytes.next() {
            text.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                byte => byte,
            });
        }
        String::from_utf8(text).unwrap()
    }
}

/// Returns the fields of the first form that posts to `action`, with their values.
pub fn form(page: &str, action: &str) -> Vec<(String, String)> {
    let forms = page.split("<form").skip(1).map(|form| form.split("</form>").next().unwrap());
    let of_action = |form: &&str| {
        let to = attribute(form.split('>').next().unwrap(), "action").unwrap_or_default();
        to.trim_start_matches("../") == action
    };
    let form = forms.into_iter().find(of_action).unwrap_or_else(|| panic!("no form posts to {action}: {page}"));
    let inputs = form.split("<input").skip(1).map(|input| input.split('>').next().unwrap());
    inputs
        .filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value").unwrap_or_default())))
        .collect()
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
    Some(value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

/// Returns fields with some of them filled in.
pub fn with(mut fields: Vec<(String, String)>, filled: &[(&str, &str)]) -> Vec<(String, String)> {
    for (name, value) in filled {
        fields.retain(|(field, _)| field != name);
        fields.push(((*name).to_owned(), (*value).to_owned()));
    }
    fields
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
