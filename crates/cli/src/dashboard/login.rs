//! Who may open the pages.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, LOCATION, REFERRER_POLICY, SET_COOKIE,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reveille_dashboard::Viewer;
use tokio::sync::Semaphore;

use super::{Auth, variable};
use crate::{Failure, operator};

/// How visitors log in.
pub struct Login {
    way: Way,
    /// Checking a hash takes the processor for long, so one is checked at a time.
    turns: Semaphore,
    /// Failed logins wait here, so that nobody can guess quickly. Those that are right pass by.
    failed: Semaphore,
    /// The password that fits the hash, once a visitor has sent it. It is then known at once.
    known: Mutex<Option<String>>,
}

enum Way {
    /// By a link with a token, which becomes a cookie with this name. Only the user who has started the command can
    /// read the link.
    Link { token: String, cookie: String, is_https: bool, operator: String },
    /// By any name and this password.
    Password(String),
    /// By any name and the password with this bcrypt hash.
    Hash(String),
    /// By a token that a proxy sends.
    Bearer(String),
    /// Everybody is let in.
    Open,
}

/// The time that a failed login takes, the number of failed logins that take it at once, and the longest time that a
/// failed login waits for its turn. The last bounds how long such logins can hold all connections.
const FAILED_LOGIN: Duration = Duration::from_secs(1);
const FAILED_AT_ONCE: usize = 4;
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The name of a visitor who has told no name.
const NAMELESS: &str = "dashboard";
const LONGEST_NAME: usize = 200;

impl Login {
    /// # Errors
    /// If the address can be reached from other machines and no way is given, or if the way lacks its secret.
    pub fn new(auth: Option<Auth>, address: SocketAddr, is_https: bool) -> Result<Login, Failure> {
        let missing = |what: &str| Failure::Error(format!("set {what} for this --auth"));
        let way = match auth {
            Some(Auth::None) => Way::Open,
            Some(Auth::Bearer) => {
                Way::Bearer(variable("REVEILLE_DASHBOARD_TOKEN").ok_or_else(|| missing("REVEILLE_DASHBOARD_TOKEN"))?)
            }
            Some(Auth::Basic) => {
                let hash = variable("REVEILLE_DASHBOARD_PASSWORD_HASH").map(hash).transpose()?.map(Way::Hash);
                let way = hash.or_else(|| variable("REVEILLE_DASHBOARD_PASSWORD").map(Way::Password));
                way.ok_or_else(|| missing("REVEILLE_DASHBOARD_PASSWORD or REVEILLE_DASHBOARD_PASSWORD_HASH"))?
            }
            None if address.ip().is_loopback() => {
                let cookie = format!("reveille_{}", address.port());
                Way::Link { token: token()?, cookie, is_https, operator: operator::name() }
            }
            None => {
                return Err(Failure::Error(format!(
                    "others can reach {address}: add --auth basic, --auth bearer, or --auth none to let everybody in"
                )));
            }
        };
        let [turns, failed] = [1, FAILED_AT_ONCE].map(Semaphore::new);
        Ok(Login { way, turns, failed, known: Mutex::default() })
    }

    /// Returns the end of the link to the pages: the token, if the link has one.
    pub fn query(&self) -> String {
        match &self.way {
            Way::Link { token, .. } => format!("?token={token}"),
            _ => String::new(),
        }
    }

    /// Returns the visitor's name, if they have logged in.
    async fn name(&self, headers: &HeaderMap) -> Option<String> {
        let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match &self.way {
            Way::Open => Some(NAMELESS.to_owned()),
            Way::Link { token, cookie, operator, .. } => {
                cookies(headers).any(|(name, value)| name == cookie && is_same(value, token)).then(|| operator.clone())
            }
            Way::Bearer(token) => {
                is_same(credentials(authorization, "bearer")?, token).then(|| forwarded_user(headers))?
            }
            Way::Password(password) => {
                let (name, sent) = basic(authorization)?;
                is_same(&sent, password).then_some(name)
            }
            Way::Hash(hash) => {
                let (name, sent) = basic(authorization)?;
                (self.is_known(&sent) || self.fits(sent, hash).await).then_some(name)
            }
        }
    }

    fn is_known(&self, sent: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|password| is_same(sent, password))
    }

    async fn fits(&self, sent: String, hash: &str) -> bool {
        let _turn = self.turns.acquire().await;
        let (password, hash) = (sent.clone(), hash.to_owned());
        let is_right =
            matches!(tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash)).await, Ok(Ok(true)));
        if is_right {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
        }
        is_right
    }

    /// Slows a failed login down.
    async fn slow_down(&self) {
        let _turn = tokio::time::timeout(LONGEST_WAIT, self.failed.acquire()).await;
        tokio::time::sleep(FAILED_LOGIN).await;
    }

    /// Answers a visitor who has not logged in.
    fn refusal(&self) -> Response {
        let (status, text) = match &self.way {
            Way::Link { .. } => (
                StatusCode::FORBIDDEN,
                "Open the link that `reveille dashboard` has printed: it has the token for this browser.\n",
            ),
            _ => (StatusCode::UNAUTHORIZED, "Log in to see the dashboard.\n"),
        };
        let mut answer = (status, text).into_response();
        if let Way::Password(_) | Way::Hash(_) = self.way {
            let challenge = HeaderValue::from_static("Basic realm=\"Reveille\", charset=\"UTF-8\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}

/// Lets a visitor through who has logged in, with their [`Viewer`] in the request.
pub async fn check(State(login): State<Arc<Login>>, mut request: Request, next: Next) -> Response {
    let token = request.uri().query().and_then(|query| query.strip_prefix("token="));
    if let (Way::Link { token: wanted, cookie, is_https, .. }, Some(sent)) = (&login.way, token)
        && is_same(sent, wanted)
    {
        return safe(follow_link(wanted, cookie, *is_https));
    }
    let has_tried = token.is_some() || request.headers().contains_key(AUTHORIZATION);
    if let Some(name) = login.name(request.headers()).await {
        request.extensions_mut().insert(Viewer::new(name));
        return next.run(request).await;
    }
    if has_tried {
        login.slow_down().await;
    }
    safe(login.refusal())
}

/// Answers the printed link: the token becomes a cookie, and leaves the address.
fn follow_link(token: &str, cookie: &str, is_https: bool) -> Response {
    // The port stands in the cookie's name, since cookies do not distinguish ports.
    let secure = if is_https { "; Secure" } else { "" };
    let cookie = format!("{cookie}={token}; Path=/; HttpOnly; SameSite=Lax{secure}");
    (StatusCode::SEE_OTHER, [(LOCATION, "./".to_owned()), (SET_COOKIE, cookie)]).into_response()
}

/// Adds the headers for safety that the pages also have.
fn safe(mut answer: Response) -> Response {
    let headers = [
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ];
    answer.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answer
}

/// Returns the name that the proxy has sent. Two names are none: the visitor may have sent the other one.
fn forwarded_user(headers: &HeaderMap) -> Option<String> {
    let mut users = headers.get_all("x-forwarded-user").iter();
    let (user, second) = (users.next(), users.next());
    match (user, second) {
        (_, Some(_)) => None,
        (None, None) => Some(NAMELESS.to_owned()),
        (Some(user), None) => visitor(std::str::from_utf8(user.as_bytes()).ok()?),
    }
}

/// Returns the name of a visitor as it is recorded; `None` if it cannot be recorded.
fn visitor(name: &str) -> Option<String> {
    match name.trim() {
        "" => Some(NAMELESS.to_owned()),
        name if name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) => None,
        name => Some(name.to_owned()),
    }
}

/// Returns what follows the scheme in the header `Authorization`.
fn credentials<'a>(authorization: &'a str, scheme: &str) -> Option<&'a str> {
    let (sent, credentials) = authorization.split_once(' ')?;
    sent.eq_ignore_ascii_case(scheme).then(|| credentials.trim())
}

/// Checks a hash before anybody logs in by it. Its cost is the time of each check.
fn hash(hash: String) -> Result<String, Failure> {
    let parts = hash.parse::<bcrypt::HashParts>().ok();
    match parts.is_some_and(|parts| (4..=16).contains(&parts.get_cost())) {
        true => Ok(hash),
        false => Err(Failure::Error(
            "REVEILLE_DASHBOARD_PASSWORD_HASH is no bcrypt hash with a cost of 4 to 16, such as $2y$12$…".to_owned(),
        )),
    }
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='))
}

/// Reads the name and the password of RFC 7617.
fn basic(authorization: &str) -> Option<(String, String)> {
    let decoded = BASE64_STANDARD.decode(credentials(authorization, "basic")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((visitor(name)?, password.to_owned()))
}

/// Compares two secrets in a time that does not tell where they differ.
fn is_same(sent: &str, secret: &str) -> bool {
    let differences = sent.bytes().zip(secret.bytes()).fold(0, |all, (one, other)| all | (one ^ other));
    sent.len() == secret.len() && std::hint::black_box(differences) == 0
}

fn token() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::Error(format!("no randomness for the token: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_password_are_read() {
        assert_eq!(basic("Basic YWRhOnA6dw=="), Some(("ada".into(), "p:w".into())));
        assert_eq!(basic("Basic OnB3"), Some(("dashboard".into(), "pw".into())));
        assert_eq!(basic("basic YWRhOnA6dw=="), Some(("ada".into(), "p:w".into())));
        assert_eq!([basic("Basic !"), basic("Bearer x"), basic(""), basic("Basic YWRh")], [None, None, None, None]);
        assert!(is_same("abc", "abc") && !is_same("abd", "abc") && !is_same("ab", "abc") && !is_same("", "abc"));
    }

    #[test]
    fn an_address_for_others_needs_a_way_to_log_in() {
        let login = |address: &str, auth| Login::new(auth, address.parse().unwrap(), false);
        assert!(login("127.0.0.1:7070", None).is_ok_and(|login| login.query().len() == 39));
        assert!(login("[::1]:7070", None).is_ok());
        assert!(matches!(login("0.0.0.0:7070", None), Err(Failure::Error(error)) if error.contains("--auth")));
        assert!(login("0.0.0.0:7070", Some(Auth::None)).is_ok_and(|login| login.query().is_empty()));
    }

    #[test]
    fn a_proxy_tells_one_name() {
        let user = |users: &[&str]| {
            let users = users.iter().map(|user| HeaderValue::from_bytes(user.as_bytes()).unwrap());
            let name = axum::http::HeaderName::from_static("x-forwarded-user");
            forwarded_user(&users.map(|user| (name.clone(), user)).collect())
        };
        let told = [user(&["ada"]), user(&["Żaneta"]), user(&[""]), user(&[])];
        assert_eq!(told, ["ada", "Żaneta", "dashboard", "dashboard"].map(|name| Some(name.to_owned())));
        assert_eq!([user(&["ada", "eve"]), user(&["a\tb"]), user(&[&"x".repeat(201)])], [None, None, None]);
    }

    #[test]
    fn a_hash_is_checked_at_the_start() {
        let good = bcrypt::hash("x", 4).unwrap();
        assert!(hash(good.clone()).is_ok() && hash(good.replace("$04$", "$17$")).is_err());
        assert!(hash(format!("ada:{good}")).is_err() && hash("secret".into()).is_err());
    }
}
