//! The hosts at which the dashboard is served.

use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};

use super::Refusal;

/// The hosts at which the dashboard is served.
///
/// A page of a foreign site can make its own name resolve to the dashboard's address (DNS rebinding). The browser then
/// takes the dashboard for a part of that site. But it sends the site's name in the header `Host`.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// The names of the hosts without ports, in lower case.
    names: Vec<String>,
    /// The names that were given, in lower case, each with its port unless that is 80 or 443. A page whose `Origin` is
    /// one of these is the dashboard's own, even if a proxy has changed the header `Host`.
    origins: Vec<String>,
}

impl Hosts {
    pub fn loopback() -> Hosts {
        Hosts { names: ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec(), origins: Vec::new() }
    }

    pub fn and(mut self, names: impl IntoIterator<Item = String>) -> Hosts {
        for name in names {
            let name = name.to_ascii_lowercase();
            self.names.push(name.parse::<Authority>().map_or_else(|_| name.clone(), |name| name.host().to_owned()));
            self.origins.push(without_usual_port(&name).to_owned());
        }
        self
    }

    /// Returns true if this host, with or without a port, is one of the hosts.
    pub fn have(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let host = authority.host().to_ascii_lowercase();
        // An authority may also hold a user's name, which no browser sends.
        !authority.as_str().contains('@') && self.names.contains(&host)
    }

    /// Returns true if a page of this origin, written without its scheme, is a page of the dashboard.
    ///
    /// The port counts: at another port of the same host, somebody else may serve pages.
    pub fn are_origin(&self, authority: &str, request: &HeaderMap) -> bool {
        let authority = authority.to_ascii_lowercase();
        let host = request.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
        let is_same = without_usual_port(&authority) == without_usual_port(&host);
        self.have(&authority) && (is_same || self.origins.contains(&authority))
    }

    /// # Errors
    /// A refusal, unless each host that the request names is one of the hosts, and it names one.
    pub fn check(&self, request: &Parts) -> Result<(), Refusal> {
        let headers = request.headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        // HTTP/2, and requests to a proxy, have the host in the address.
        let mut hosts = headers.chain(request.uri.authority().map(Authority::as_str)).peekable();
        match hosts.peek().is_some() && hosts.all(|host| self.have(host)) {
            true => Ok(()),
            false => Err(Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                "The dashboard does not serve this host. Start it with --host NAME, or name the host in \
                 Dashboard::hosts.",
            )),
        }
    }
}

fn without_usual_port(authority: &str) -> &str {
    authority.strip_suffix(":443").or_else(|| authority.strip_suffix(":80")).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_by_its_name_whatever_the_port() {
        let hosts = Hosts::loopback().and(["Ops.Example.com".to_owned()]);
        for host in ["localhost", "LOCALHOST:7070", "127.0.0.1:7070", "[::1]:7070", "ops.example.com:443"] {
            assert!(hosts.have(host), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:7070", "x@localhost", "localhost/"]
        {
            assert!(!hosts.have(host), "{host}");
        }
    }

    #[test]
    fn an_origin_is_known_by_its_port_too() {
        let hosts = Hosts::loopback().and(["ops.example.com".to_owned(), "ops.example.com:8443".to_owned()]);
        let is_own =
            |origin: &str, host: &str| hosts.are_origin(origin, &[(HOST, host.parse().unwrap())].into_iter().collect());
        assert!(is_own("localhost:7070", "localhost:7070") && is_own("localhost", "localhost:80"));
        assert!(is_own("ops.example.com", "127.0.0.1:7070") && is_own("OPS.example.com:8443", "127.0.0.1:7070"));
        for (origin, host) in [
            ("localhost:3000", "localhost:7070"),
            ("localhost", "localhost:7070"),
            ("127.0.0.1:7070", "localhost:7070"),
            ("ops.example.com:3000", "ops.example.com"),
            ("evil.example", "evil.example"),
            ("", ""),
        ] {
            assert!(!is_own(origin, host), "{origin} {host}");
        }
    }
}
