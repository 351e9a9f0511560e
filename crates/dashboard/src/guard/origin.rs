//! Where a POST comes from: only the dashboard's own pages may send one.

use axum::http::HeaderMap;
use axum::http::header::ORIGIN;

use super::Refusal;
use super::hosts::Hosts;

/// # Errors
/// A refusal, unless a page of the dashboard's own origin sent the request. Browsers of 2023 and later say so in the
/// header `Sec-Fetch-Site`, but only to servers with TLS or on the same machine. Without it, the header `Origin` must
/// name the host and the port that the request is for, or one of the hosts that were given.
pub fn check(headers: &HeaderMap, hosts: &Hosts) -> Result<(), Refusal> {
    // No browser sends one of these headers twice.
    let text = |name| match headers.get_all(name).iter().collect::<Vec<_>>()[..] {
        [] => None,
        [value] => Some(value.to_str().unwrap_or_default()),
        _ => Some(""),
    };
    let is_own = match (text("sec-fetch-site"), text(ORIGIN.as_str())) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => {
            let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            authority.is_some_and(|authority| hosts.are_origin(authority, headers))
        }
        (None, None) => false,
    };
    match is_own {
        true => Ok(()),
        false => {
            Err(Refusal::forbidden("The request does not come from a page of this dashboard. Nothing was changed."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dashboards_own_pages_may_post() {
        let check = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            check(&headers, &Hosts::loopback()).is_ok()
        };
        assert!(check(&[("sec-fetch-site", "same-origin"), ("origin", "https://behind.a.proxy")]));
        assert!(check(&[("origin", "http://127.0.0.1:7070"), ("host", "127.0.0.1:7070")]));
        for headers in [
            &[][..],
            &[("sec-fetch-site", "cross-site"), ("origin", "http://localhost")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "")],
            &[("origin", "http://localhost:3000"), ("host", "localhost:7070")],
            &[("sec-fetch-site", "none")],
            &[("origin", "null")],
            &[("origin", "http://evil.example")],
            &[("origin", "http://localhost.evil.example")],
            &[("origin", "ftp://localhost")],
        ] {
            assert!(!check(headers), "{headers:?}");
        }
    }
}
