//! Answers a request for a page: with the page, or with the stream that keeps it up to date.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::future::{BoxFuture, FutureExt};
use futures::stream;
use maud::{Markup, html};

use crate::draw::parts;
use crate::draw::shell::{self, Section};
use crate::guard::Refusal;
use crate::readings::Age;
use crate::visit::Visit;

/// The time between two looks at whether an open page has changed.
const TICK: Duration = Duration::from_secs(1);
/// A stream ends after this time. The browser then opens another one, whose visitor is checked anew.
const STREAM_LIFE: Duration = Duration::from_secs(300);

/// A page, without the frame that all pages have.
pub struct Page {
    pub title: String,
    pub section: Section,
    pub body: Markup,
}

/// Draws a page. It is boxed, so that the code for pages and their streams is compiled once, and not for each page.
type Draw = Box<dyn Fn(Visit) -> BoxFuture<'static, Result<Page, Refusal>> + Send + Sync>;

/// Answers with the page that `draw` returns. If the request asks for a stream, the body is sent again whenever it has
/// changed.
pub async fn page<F, D>(visit: Visit, draw: D) -> Result<Response, Refusal>
where
    D: Fn(Visit) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Page, Refusal>> + Send + 'static,
{
    answer(visit, Box::new(move |visit| draw(visit).boxed())).await
}

async fn answer(visit: Visit, draw: Draw) -> Result<Response, Refusal> {
    if visit.is_stream {
        return open_stream(visit, draw);
    }
    let page = draw(visit.clone()).await?;
    Ok(shell::page(&visit, &page).into_response())
}

struct Stream {
    visit: Visit,
    draw: Draw,
    /// The last body that could be drawn.
    drawn: Markup,
    /// What the browser shows.
    sent: String,
    ends_at: Instant,
    shared: Arc<crate::shared::Shared>,
}

fn open_stream(visit: Visit, draw: Draw) -> Result<Response, Refusal> {
    let shared = Arc::clone(&visit.shared);
    let full = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "Too many pages are open. This page is not live.");
    // The permit belongs to the stream: it is given back when the stream is dropped.
    shared.streams.try_acquire().map_err(|_| full())?.forget();
    let visit = Visit { age: Age::Streamed, ..visit };
    let stream = Stream {
        visit,
        draw,
        drawn: Markup::default(),
        sent: String::new(),
        ends_at: Instant::now() + STREAM_LIFE,
        shared,
    };
    let events = stream::unfold(stream, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    let mut answer = Sse::new(events).keep_alive(keep_alive).into_response();
    // nginx sends each event at once, instead of gathering them.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    answer.headers_mut().extend([(Some(unbuffered.0), unbuffered.1)]);
    Ok(answer)
}

impl Stream {
    /// Waits until the page has changed. Returns `None` when the stream is to end.
    async fn next(&mut self) -> Option<Event> {
        let mut is_ending = self.shared.is_ending.subscribe();
        while Instant::now() < self.ends_at {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = is_ending.wait_for(|is_ending| *is_ending) => return None,
            }
            let visit = self.visit.clone().with_rights().await;
            let drawn = match visit.trouble.clone() {
                Some(trouble) => Err(trouble),
                None => (self.draw)(visit).await.map_err(|refusal| refusal.reason),
            };
            let body = match drawn {
                Ok(page) => {
                    self.drawn = page.body;
                    self.drawn.0.clone()
                }
                // The page keeps what it has shown, below what is wrong.
                Err(trouble) => html! { (parts::problem(&trouble)) (self.drawn) }.into_string(),
            };
            if body != self.sent {
                // To an event stream, a carriage return is the end of a line.
                let event = Event::default().data(body.replace('\r', "&#13;"));
                self.sent = body;
                return Some(event);
            }
        }
        None
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.streams.add_permits(1);
    }
}
