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
    turns: Arc<Semaphore>,
    /// Failed logins wait here. Those that are right pass by.
    failed: Semaphore,
    /// The password that fits the hash, once a visitor has sent it. It is then known at once.
    known: Mutex<Option<String>>,
}

/// Too many visitors log in at once.
struct Busy;

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
/// login waits for its turn. The last bounds how long such logins can hold all connections. A client that hangs up does
/// not wait: what keeps it from guessing is the length of the password, and the time that a hash takes.
const FAILED_LOGIN: Duration = Duration::from_secs(1);
const FAILED_AT_ONCE: usize = 4;
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The fewest characters of a password, and of the token of a proxy.
const SHORTEST_PASSWORD: usize = 12;
const SHORTEST_TOKEN: usize = 32;
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
                let name = "REVEILLE_DASHBOARD_TOKEN";
                Way::Bearer(long_enough(name, variable(name).ok_or_else(|| missing(name))?, SHORTEST_TOKEN)?)
            }
            Some(Auth::Basic) => {
                let hash = variable("REVEILLE_DASHBOARD_PASSWORD_HASH").map(hash).transpose()?.map(Way::Hash);
                let name = "REVEILLE_DASHBOARD_PASSWORD";
                match (hash, variable(name)) {
                    (Some(hash), _) => hash,
                    (None, Some(password)) => Way::Password(long_enough(name, password, SHORTEST_PASSWORD)?),
                    (None, None) => return Err(missing(&format!("{name} or {name}_HASH"))),
                }
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
        let (turns, failed) = (Arc::new(Semaphore::new(1)), Semaphore::new(FAILED_AT_ONCE));
        Ok(Login { way, turns, failed, known: Mutex::default() })
    }

    /// Returns the end of the link to the pages: the token, if the link has one.
    pub fn query(&self) -> String {
        match &self.way {
            Way::Link { token, .. } => format!("?token={token}"),
            _ => String::new(),
        }
    }

    /// Returns the visitor's name; `None` if they have not logged in.
    ///
    /// # Errors
    /// If too many visitors log in at once to check this one.
    async fn name(&self, headers: &HeaderMap) -> Result<Option<String>, Busy> {
        if let Way::Hash(hash) = &self.way
            && let Some((name, sent)) = basic(authorization(headers))
        {
            let fits = self.is_known(&sent) || self.fits(sent, hash).await?;
            return Ok(fits.then_some(name));
        }
        Ok(self.name_at_once(headers))
    }

    /// Returns the visitor's name, unless a hash has to be checked for it.
    fn name_at_once(&self, headers: &HeaderMap) -> Option<String> {
        match &self.way {
            Way::Open => Some(NAMELESS.to_owned()),
            Way::Link { token, cookie, operator, .. } => {
                cookies(headers).any(|(name, value)| name == cookie && is_same(value, token)).then(|| operator.clone())
            }
            Way::Bearer(token) => {
                is_same(credentials(authorization(headers), "bearer")?, token).then(|| forwarded_user(headers))?
            }
            Way::Password(password) => {
                let (name, sent) = basic(authorization(headers))?;
                is_same(&sent, password).then_some(name)
            }
            Way::Hash(_) => None,
        }
    }

    fn is_known(&self, sent: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|password| is_same(sent, password))
    }

    async fn fits(&self, sent: String, hash: &str) -> Result<bool, Busy> {
        let turn = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| Busy)?;
        let (password, hash) = (sent.clone(), hash.to_owned());
        let check = tokio::task::spawn_blocking(move || {
            // A check goes on after its visitor has left, so it keeps the turn by itself.
            let _turn = turn;
            bcrypt::verify(password, &hash)
        });
        let is_right = matches!(check.await, Ok(Ok(true)));
        if is_right {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
        }
        Ok(is_right)
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
            Way::Bearer(_) => (
                StatusCode::UNAUTHORIZED,
                "The proxy must send the token, and the visitor's name in X-Forwarded-User.\n",
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
    match login.name(request.headers()).await {
        Ok(Some(name)) => {
            request.extensions_mut().insert(Viewer::new(name));
            return next.run(request).await;
        }
        Ok(None) => {}
        Err(Busy) => {
            let text = "Too many visitors log in at once. Try again.\n";
            return safe((StatusCode::SERVICE_UNAVAILABLE, text).into_response());
        }
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
        (Some(user), None) => {
            let user = std::str::from_utf8(user.as_bytes()).ok()?;
            visitor(user).filter(|_| !user.trim().is_empty())
        }
        _ => None,
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

fn authorization(headers: &HeaderMap) -> &str {
    headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Returns what follows the scheme in the header `Authorization`.
fn credentials<'a>(authorization: &'a str, scheme: &str) -> Option<&'a str> {
    let (sent, credentials) = authorization.split_once(' ')?;
    sent.eq_ignore_ascii_case(scheme).then(|| credentials.trim())
}

fn long_enough(name: &str, secret: String, shortest: usize) -> Result<String, Failure> {
    match secret.chars().count() >= shortest {
        true => Ok(secret),
        false => {
            Err(Failure::Error(format!("{name} is too easy to guess: take at least {shortest} random characters")))
        }
    }
}

/// Checks a hash before anybody logs in by it. Its cost is the time of each check.
fn hash(hash: String) -> Result<String, Failure> {
    let parts = hash.parse::<bcrypt::HashParts>().ok();
    match parts.is_some_and(|parts| (10..=16).contains(&parts.get_cost())) {
        true => Ok(hash),
        false => Err(Failure::Error(
            "REVEILLE_DASHBOARD_PASSWORD_HASH is no bcrypt hash with a cost of 10 to 16, such as $2y$12$…".to_owned(),
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
        assert_eq!(told, [Some("ada".to_owned()), Some("Żaneta".to_owned()), None, None]);
        assert_eq!([user(&["ada", "eve"]), user(&["a\tb"]), user(&[&"x".repeat(201)])], [None, None, None]);
    }

    #[test]
    fn a_hash_is_checked_at_the_start() {
        let good = bcrypt::hash("x", 10).unwrap();
        let with_cost = |cost: &str| hash(good.replace("$10$", cost)).is_ok();
        assert!(with_cost("$10$") && with_cost("$16$") && !with_cost("$17$") && !with_cost("$09$"));
        assert!(hash(format!("ada:{good}")).is_err() && hash("secret".into()).is_err());
    }
}
