//! The two ways to write a database's address: URLs and key=value pairs.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The parameters of an address by name.
pub(super) type Params = BTreeMap<String, String>;

/// Reads the parameters of `[user[:password]@][host[:port],…][/database][?key=value&…]`.
pub(super) fn from_url(rest: &str) -> Result<Params> {
    let mut params = BTreeMap::new();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    // If a password holds an unescaped `@`, its rest could be taken for a name or a parameter, and shown in an error.
    if database.contains('@') || query.contains('@') {
        return Err(Error::invalid(
            "the database's address is not valid: an @ follows a / or ?; in a password write %2F, %3F and %40",
        ));
    }
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    for (key, value) in [("user", user), ("password", password), ("dbname", database)] {
        if !value.is_empty() {
            params.insert(key.into(), decode(value)?);
        }
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',').filter(|_| !hosts.is_empty()) {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, port)) => (name, port.strip_prefix(':').unwrap_or("")),
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(decode(name)?);
        ports.push(decode(port)?);
    }
    if names.iter().any(|name| !name.is_empty()) {
        params.insert("host".into(), names.join(","));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        let port = |port: &String| if port.is_empty() { "5432".into() } else { port.clone() };
        params.insert("port".into(), ports.iter().map(port).collect::<Vec<_>>().join(","));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            Error::invalid("the database's address is not valid: a parameter after ? lacks a value; write key=value")
        })?;
        params.insert(decode(key)?, decode(value)?);
    }
    Ok(params)
}

fn decode(text: &str) -> Result<String> {
    let malformed = || {
        Error::invalid(
            "the database's address is not valid: each % must be followed by two hex digits, and \
             the decoded text must be UTF-8",
        )
    };
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'%' {
            let (&[high, low], behind) = rest.split_first_chunk().ok_or_else(malformed)?;
            let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(malformed);
            bytes.push((digit(high)? * 16 + digit(low)?) as u8);
            rest = behind;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

/// Reads the parameters of `key=value key = 'value with \' and spaces'`.
pub(super) fn from_pairs(text: &str) -> Result<Params> {
    let mut params = BTreeMap::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(params);
        }
        let key: String = std::iter::from_fn(|| chars.next_if(|c| !c.is_whitespace() && *c != '=')).collect();
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next_if_eq(&'=').is_none() {
            // The text may hold a password, so the error does not quote it.
            return Err(Error::invalid(
                "the database's address is not valid: it is neither a URL (postgres://…) nor key=value pairs",
            ));
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let is_quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if is_quoted => break,
                Some(c) if !is_quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if is_quoted => {
                    return Err(Error::invalid("the database's address is not valid: a quote is not closed; close it"));
                }
                None => break,
            }
        }
        params.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Percent-encodes all but letters and digits.
    fn encode(text: &str) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        let encode = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        text.bytes().map(encode).collect()
    }

    fn quote(text: &str) -> String {
        format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
    }

    proptest! {
        #[test]
        fn pairs_are_read_as_they_were_written(params in prop::collection::btree_map(".*", ".*", 0..6)) {
            let params: Params = params.into_iter().map(|(key, value)| (encode(&key), value)).collect();
            let pairs = params.iter().filter(|(key, _)| !key.is_empty());
            let text: Vec<String> = pairs.map(|(key, value)| format!("{} = {}", key, quote(value))).collect();
            let mut expected = params.clone();
            expected.remove("");
            prop_assert_eq!(from_pairs(&text.join(" ")).unwrap(), expected);
        }

        #[test]
        fn a_url_is_read_as_it_was_written(
            user in ".+", password in ".+", hosts in prop::collection::vec(("[^,]+", 0u16..), 1..4),
            dbname in ".+", more in "\\PC+"
        ) {
            let places = hosts.iter().map(|(host, port)| format!("{}:{port}", encode(host)));
            let (user_, password_, dbname_, more_) = (encode(&user), encode(&password), encode(&dbname), encode(&more));
            let places = places.collect::<Vec<_>>().join(",");
            let read = from_url(&format!("{user_}:{password_}@{places}/{dbname_}?options={more_}")).unwrap();
            let (names, ports): (Vec<String>, Vec<String>) =
                hosts.into_iter().map(|(host, port)| (host, port.to_string())).unzip();
            let expected = [
                ("user", user), ("password", password), ("dbname", dbname), ("options", more),
                ("host", names.join(",")), ("port", ports.join(",")),
            ];
            prop_assert_eq!(read, expected.into_iter().map(|(key, value)| (key.into(), value)).collect::<Params>());
        }

        #[test]
        fn a_percent_sign_needs_two_digits_behind_it(text in ".*", behind in "[^0-9a-fA-F]?.?") {
            prop_assert_eq!(decode(&encode(&text)).unwrap(), text);
            let is_hex = behind.len() >= 2 && behind.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
            let read = decode(&format!("%{behind}"));
            prop_assert!(is_hex || read.is_err());
        }
    }
}
