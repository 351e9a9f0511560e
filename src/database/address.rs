//! Where a server is and how to log in, as libpq understands it: URLs and key=value strings, `PG*` variables, `~/.pgpass`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::pgpass;
use super::tls::Security;
use crate::error::{Error, Result};

/// Parameters that tokio-postgres itself understands.
const PASSED_ON: [&str; 19] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
    "keepalives_count",
];
/// Parameters of libpq that are handled here or mean nothing here.
const OURS: [&str; 14] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "passfile",
    "fallback_application_name",
    "client_encoding",
    "sslcompression",
    "sslsni",
    "ssl_min_protocol_version",
    "gssencmode",
    "requirepeer",
    "require_auth",
    "connect_retries",
];
/// The environment's variables and the parameters that they stand for.
const VARIABLES: [(&str, &str); 16] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGDATABASE", "dbname"),
    ("PGOPTIONS", "options"),
    ("PGAPPNAME", "application_name"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGPASSFILE", "passfile"),
];

/// Where a server is and how to log in.
#[derive(Clone)]
pub(crate) struct Address {
    config: Config,
    security: Security,
}

impl Address {
    /// Reads a URL or key=value string; what it leaves open comes from the environment. `None`: from that alone.
    pub(crate) fn parse(text: Option<&str>) -> Result<Address> {
        Address::parse_in(text, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn parse_in(text: Option<&str>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Address> {
        let mut params = match text.map(str::trim) {
            None | Some("") => BTreeMap::new(),
            Some(text) => match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
                Some(rest) => from_url(rest)?,
                None => from_pairs(text)?,
            },
        };
        for (name, key) in VARIABLES {
            // An address given by number stands for the host, and the other way round.
            if matches!(key, "host" | "hostaddr") && (params.contains_key("host") || params.contains_key("hostaddr")) {
                continue;
            }
            if let Some(value) = variable(name) {
                params.entry(key.into()).or_insert(value);
            }
        }
        if let Some(key) = params.keys().find(|key| !PASSED_ON.contains(&key.as_str()) && !OURS.contains(&key.as_str()))
        {
            return Err(Error::invalid(format!("unknown parameter {key:?} in the database's address")));
        }
        let home = variable("HOME").map(PathBuf::from);
        complete(&mut params, variable("USER"));
        if let (false, Some(password)) = (params.contains_key("password"), pgpass::password(&params, home.as_deref())) {
            params.insert("password".into(), password);
        }
        let security = Security::new(&params, home.as_deref())?;
        let mut config = config(&params)?;
        config.ssl_mode(security.ssl_mode());
        Ok(Address { config, security })
    }

    /// The same server's other database.
    pub(crate) fn with_database(mut self, name: &str) -> Address {
        self.config.dbname(name);
        self
    }

    /// The same, its sessions named so in the server's lists.
    pub(crate) fn named(&self, name: &str) -> Address {
        let mut address = self.clone();
        address.config.application_name(name);
        address
    }

    /// The same, with a further setting that its sessions start with.
    pub(crate) fn with_setting(&self, name: &str, value: &str) -> Address {
        let mut address = self.clone();
        let options = self.config.get_options().unwrap_or_default();
        address.config.options(format!("{options} -c {name}={value}"));
        address
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    /// For logs and errors: where it is and as whom, never a password.
    pub(crate) fn describe(&self) -> String {
        let ports = self.config.get_ports();
        let host = |(place, host): (usize, &Host)| {
            let port = ports.get(place).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(host) => format!("{host}:{port}"),
                Host::Unix(folder) => format!("{}:{port}", folder.display()),
            }
        };
        let hosts: Vec<String> = self.config.get_hosts().iter().enumerate().map(host).collect();
        let database = self.config.get_dbname().map(|name| format!("/{name}")).unwrap_or_default();
        let user = self.config.get_user().map(|user| format!(" as {user}")).unwrap_or_default();
        format!("{}{database}{user}", hosts.join(","))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.describe())
    }
}

/// libpq's defaults.
fn complete(params: &mut BTreeMap<String, String>, user: Option<String>) {
    if let Some(name) = params.remove("fallback_application_name") {
        params.entry("application_name".into()).or_insert(name);
    }
    if let Some(count) = params.remove("keepalives_count") {
        params.entry("keepalives_retries".into()).or_insert(count);
    }
    if !params.contains_key("host") && !params.contains_key("hostaddr") {
        let port = params.get("port").map_or("5432", String::as_str);
        let socket = |folder: &&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
        let host = ["/var/run/postgresql", "/tmp"].into_iter().find(socket).unwrap_or("localhost");
        params.insert("host".into(), host.into());
    }
    if let Some(user) = user {
        params.entry("user".into()).or_insert(user);
    }
    if let Some(user) = params.get("user").cloned() {
        params.entry("dbname".into()).or_insert(user);
    }
    params.entry("application_name".into()).or_insert_with(|| "reveille".into());
    params.entry("connect_timeout".into()).or_insert_with(|| "10".into());
}

fn config(params: &BTreeMap<String, String>) -> Result<Config> {
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let passed_on = params.iter().filter(|(key, _)| PASSED_ON.contains(&key.as_str()));
    let text: Vec<String> = passed_on.map(|(key, value)| format!("{key}='{}'", quoted(value))).collect();
    let mut config: Config = text.join(" ").parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        Error::invalid(format!("the database's address makes no sense: {cause}"))
    })?;
    // Sooner than most systems' defaults of two hours and fifteen minutes.
    if !params.contains_key("keepalives_idle") {
        config
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(3))
            .keepalives_retries(3);
    }
    if !params.contains_key("tcp_user_timeout") {
        config.tcp_user_timeout(Duration::from_secs(15));
    }
    Ok(config)
}

/// The parameters of `[user[:password]@][host[:port],…][/database][?key=value&…]`.
fn from_url(rest: &str) -> Result<BTreeMap<String, String>> {
    let mut params = BTreeMap::new();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
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
            Error::invalid("the database's address makes no sense: a parameter behind its ? has no value")
        })?;
        params.insert(decode(key)?, decode(value)?);
    }
    Ok(params)
}

fn decode(text: &str) -> Result<String> {
    let nonsense =
        || Error::invalid("the database's address makes no sense: % must be followed by two hex digits of UTF-8");
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'%' {
            let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(nonsense)?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| nonsense())?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| nonsense())
}

/// The parameters of `key=value key = 'value with \' and spaces'`.
fn from_pairs(text: &str) -> Result<BTreeMap<String, String>> {
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
            // Not the text itself: it may hold a password.
            return Err(Error::invalid(
                "the database's address makes no sense: it is neither a URL (postgres://…) nor key=value pairs",
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
                    return Err(Error::invalid("the database's address makes no sense: a quote is not closed"));
                }
                None => break,
            }
        }
        params.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address> {
        Address::parse_in(Some(text), &|_| None)
    }

    fn with(text: Option<&str>, variables: &[(&str, &str)]) -> Address {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Address::parse_in(text, &find).unwrap()
    }

    #[test]
    fn a_url_and_its_pairs_mean_the_same() {
        let url = parse("postgres://al%40ice:p%3Aw@db.example.com:6543/shop?application_name=x").unwrap();
        let pairs =
            parse("host=db.example.com port = 6543 user='al@ice' password=p:w dbname=shop application_name=x").unwrap();
        assert_eq!(url.describe(), "db.example.com:6543/shop as al@ice");
        assert_eq!(url.config, pairs.config);
        assert_eq!(url.config.get_password(), Some(&b"p:w"[..]));
    }

    #[test]
    fn several_hosts_sockets_and_ipv6_are_understood() {
        let many = parse("postgres://a:1,b,[::1]:3/db?target_session_attrs=read-write").unwrap();
        assert_eq!(many.describe(), "a:1,b:5432,::1:3/db");
        assert_eq!(parse("postgres://%2Frun%2Fpg/db").unwrap().describe(), "/run/pg:5432/db");
        assert_eq!(parse("postgres:///db?host=/run/pg&port=7").unwrap().describe(), "/run/pg:7/db");
    }

    #[test]
    fn the_string_wins_over_the_environment() {
        let variables =
            [("PGHOST", "env"), ("PGUSER", "bob"), ("PGPASSWORD", "secret"), ("PGDATABASE", "envdb"), ("PGPORT", "7")];
        assert_eq!(with(Some("postgres://given/db"), &variables).describe(), "given:7/db as bob");
        let from_environment = with(None, &variables);
        assert_eq!(from_environment.describe(), "env:7/envdb as bob");
        assert_eq!(from_environment.config.get_password(), Some(&b"secret"[..]));
    }

    #[test]
    fn the_user_is_the_default_for_the_database() {
        assert_eq!(with(Some("host=h"), &[("USER", "carol")]).describe(), "h:5432/carol as carol");
    }

    #[test]
    fn a_password_never_shows() {
        let address = parse("postgres://u:hunter2@h/db").unwrap();
        assert!(!format!("{address:?} {}", address.describe()).contains("hunter2"));
        for bad in ["postgres://u:hunter2@h:x/db", "u hunter2", "password='hunter2", "postgres://u:hunter2@h/db?x"] {
            let error = format!("{:?}", parse(bad).unwrap_err());
            assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn an_unknown_parameter_is_named() {
        let error = parse("postgres://h/db?sslmod=require").unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("sslmod"), "{error}");
    }

    #[test]
    fn every_sslmode_is_read_and_others_are_refused() {
        for mode in ["disable", "allow", "prefer"] {
            parse(&format!("postgres://h/db?sslmode={mode}")).unwrap();
        }
        let error = parse("postgres://h/db?sslmode=maybe").unwrap_err().to_string();
        assert!(error.contains("verify-full"), "{error}");
    }

    #[test]
    fn whatever_comes_is_read_or_refused_and_never_panics() {
        let mut random = fastrand::Rng::with_seed(7);
        let odd: Vec<char> = "%'\\=@:/?&[], \u{e9}\0a1".chars().collect();
        let seeds = ["postgres://u:p@[::1]:5/d?a=%41&b=c", "host='a\\'b' port=5 user = x", "postgresql://a,b/%"];
        for seed in seeds {
            for _ in 0..2000 {
                let mut text: Vec<char> = seed.chars().collect();
                for _ in 0..random.usize(1..4) {
                    let place = random.usize(..text.len());
                    text[place] = odd[random.usize(..odd.len())];
                }
                let _ = parse(&text.into_iter().collect::<String>());
            }
        }
    }
}
