//! Addresses of servers, with the login, by libpq's rules: URLs, key=value strings, `PG*` variables and `~/.pgpass`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::parameters::{self, PASSED_ON};
use super::params::{Params, from_pairs, from_url};
use super::pgpass;
use super::tls::Security;
use crate::error::{Error, Result};

/// The address of a server, with the login.
#[derive(Clone)]
pub(crate) struct Address {
    /// One configuration per host, in the order in which hosts are tried.
    hosts: Vec<Config>,
    security: Security,
}

impl Address {
    /// Reads a URL or a key=value string. Parameters that the text lacks come from the environment. With `None`, all
    /// parameters come from there.
    pub(crate) fn parse(text: Option<&str>) -> Result<Address> {
        Address::parse_in(text, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    pub(super) fn parse_in(text: Option<&str>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Address> {
        let mut params = match text.map(str::trim) {
            None | Some("") => Params::new(),
            Some(text) => match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
                Some(rest) => from_url(rest)?,
                None => from_pairs(text)?,
            },
        };
        let sources = parameters::add_variables(&mut params, variable);
        parameters::check(&params, &sources)?;
        let home = variable("HOME").map(PathBuf::from);
        complete(&mut params, variable("USER"));
        let security = Security::new(&params, home.as_deref())?;
        let host = |mut params: Params| {
            if !params.contains_key("password") {
                params.extend(pgpass::password(&params, home.as_deref()).map(|found| ("password".into(), found)));
            }
            config(&params, &security)
        };
        let hosts: Result<Vec<Config>> = each_host(params)?.into_iter().map(host).collect();
        Ok(Address { hosts: hosts?, security })
    }

    /// Returns this address for another database of the server.
    pub(crate) fn with_database(mut self, name: &str) -> Address {
        for host in &mut self.hosts {
            host.dbname(name);
        }
        self
    }

    /// Returns this address with an `application_name` for its sessions.
    pub(crate) fn named(&self, name: &str) -> Address {
        let mut address = self.clone();
        for host in &mut address.hosts {
            host.application_name(name);
        }
        address
    }

    /// Returns this address with a further setting. Its sessions start with this setting.
    pub(crate) fn with_setting(&self, name: &str, value: &str) -> Address {
        let mut address = self.clone();
        for host in &mut address.hosts {
            let options = host.get_options().unwrap_or_default();
            let options = format!("{options} -c {name}={value}");
            host.options(options);
        }
        address
    }

    /// One configuration per host, in the order in which to try them.
    pub(crate) fn hosts(&self) -> &[Config] {
        &self.hosts
    }

    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    /// Returns the hosts, database and user as text for logs and errors. The text never holds a password.
    pub(crate) fn describe(&self) -> String {
        let host = |host: &Config| {
            let port = host.get_ports().first().copied().unwrap_or(5432);
            match host.get_hosts().first() {
                Some(Host::Tcp(name)) => format!("{name}:{port}"),
                Some(Host::Unix(folder)) => format!("{}:{port}", folder.display()),
                None => String::new(),
            }
        };
        let hosts: Vec<String> = self.hosts.iter().map(host).collect();
        let first = self.hosts.first();
        let database = first.and_then(Config::get_dbname).map(|name| format!("/{name}")).unwrap_or_default();
        let user = first.and_then(Config::get_user).map(|user| format!(" as {user}")).unwrap_or_default();
        format!("{}{database}{user}", hosts.join(","))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.describe())
    }
}

/// Adds libpq's defaults for missing parameters.
fn complete(params: &mut Params, user: Option<String>) {
    if let Some(name) = params.remove("fallback_application_name") {
        params.entry("application_name".into()).or_insert(name);
    }
    if let Some(count) = params.remove("keepalives_count") {
        params.entry("keepalives_retries".into()).or_insert(count);
    }
    if let Some(user) = user {
        params.entry("user".into()).or_insert(user);
    }
    // tokio-postgres does not know `primary`. A primary is a server that accepts writes, so `read-write` finds it.
    if params.get("target_session_attrs").is_some_and(|wanted| wanted == "primary") {
        params.insert("target_session_attrs".into(), "read-write".into());
    }
    if let Some(user) = params.get("user").cloned() {
        params.entry("dbname".into()).or_insert(user);
    }
    params.entry("application_name".into()).or_insert_with(|| "reveille".into());
    params.entry("connect_timeout".into()).or_insert_with(|| "10".into());
}

/// Splits the parameters into one set per host. Each set has the host's port, and the host's numeric address if one is
/// given.
fn each_host(params: Params) -> Result<Vec<Params>> {
    let list = |key| params.get(key).map(|value| value.split(',').map(str::to_owned).collect::<Vec<_>>());
    let lists = ["host", "hostaddr", "port"].map(list);
    let [hosts, addresses, ports] = &lists;
    let count = hosts.as_ref().or(addresses.as_ref()).map_or(1, Vec::len);
    if addresses.as_ref().is_some_and(|addresses| addresses.len() != count) {
        return Err(Error::invalid(
            "the database's address is not valid: host and hostaddr must name the same number of hosts",
        ));
    }
    if ports.as_ref().is_some_and(|ports| ports.len() != 1 && ports.len() != count) {
        return Err(Error::invalid(format!(
            "the database's address is not valid: {count} hosts need one port for all, or one port each"
        )));
    }
    let at = |list: &Option<Vec<String>>, place: usize| {
        let list = list.as_ref()?;
        list.get(place).or(list.first()).filter(|value| !value.is_empty()).cloned()
    };
    let host = |place| {
        let mut params = params.clone();
        let port = at(ports, place).unwrap_or_else(|| "5432".into());
        let address = at(addresses, place);
        // If the host has no name, the certificate is checked against the numeric address.
        let host = at(hosts, place).or_else(|| address.clone()).unwrap_or_else(|| local_host(&port));
        params.remove("hostaddr");
        params.extend(address.map(|address| ("hostaddr".into(), address)));
        params.extend([("host".into(), host), ("port".into(), port)]);
        if count > 1 {
            // If there are several hosts, Reveille needs the primary.
            params.entry("target_session_attrs".into()).or_insert_with(|| "read-write".into());
        }
        params
    };
    Ok((0..count).map(host).collect())
}

/// Returns the folder of the local server's socket, or `localhost` if no socket exists.
fn local_host(port: &str) -> String {
    let socket = |folder: &&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    ["/var/run/postgresql", "/tmp"].into_iter().find(socket).unwrap_or("localhost").into()
}

fn config(params: &Params, security: &Security) -> Result<Config> {
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let passed_on = params.iter().filter(|(key, _)| PASSED_ON.contains(&key.as_str()));
    let text: Vec<String> = passed_on.map(|(key, value)| format!("{key}='{}'", quoted(value))).collect();
    let mut config: Config = text.join(" ").parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        Error::invalid(format!("the database's address is not valid: {cause}"))
    })?;
    // A socket is local and needs no encryption.
    let is_socket = matches!(config.get_hosts().first(), Some(Host::Unix(_)));
    config.ssl_mode(if is_socket { SslMode::Disable } else { security.ssl_mode() });
    // With the default of most systems, a connection to a dead server would last two hours and a quarter.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_postgres::config::TargetSessionAttrs;

    use super::*;

    fn parse(text: &str) -> Result<Address> {
        Address::parse_in(Some(text), &|_| None)
    }

    fn with(text: Option<&str>, variables: &[(&str, &str)]) -> Address {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Address::parse_in(text, &find).unwrap()
    }

    #[test]
    fn a_url_and_pairs_of_the_same_parameters_are_equal() {
        let url = parse("postgres://al%40ice:p%3Aw@db.example.com:6543/shop?application_name=x").unwrap();
        let pairs =
            parse("host=db.example.com port = 6543 user='al@ice' password=p:w dbname=shop application_name=x").unwrap();
        assert_eq!(url.describe(), "db.example.com:6543/shop as al@ice");
        assert_eq!(url.hosts, pairs.hosts);
        assert_eq!(url.hosts[0].get_password(), Some(&b"p:w"[..]));
    }

    #[test]
    fn several_hosts_sockets_and_ipv6_are_understood() {
        let many = parse("postgres://a:1,b,[::1]:3/db?target_session_attrs=read-write").unwrap();
        assert_eq!(many.describe(), "a:1,b:5432,::1:3/db");
        assert_eq!(parse("postgres://%2Frun%2Fpg/db").unwrap().describe(), "/run/pg:5432/db");
        assert_eq!(parse("postgres:///db?host=/run/pg&port=7").unwrap().describe(), "/run/pg:7/db");
    }

    #[test]
    fn each_of_several_hosts_has_its_own_port_and_address() {
        let many = parse("host=a,b hostaddr=10.0.0.1,10.0.0.2 port=1,2").unwrap();
        assert_eq!(many.hosts.iter().map(|host| host.get_ports()).collect::<Vec<_>>(), [&[1], &[2]]);
        assert!(many.hosts.iter().all(|host| host.get_hostaddrs().len() == 1));
        assert!(many.hosts.iter().all(|host| host.get_target_session_attrs() == TargetSessionAttrs::ReadWrite));
        assert_eq!(parse("host=a").unwrap().hosts[0].get_target_session_attrs(), TargetSessionAttrs::Any);
        let asked = parse("host=a,b target_session_attrs=any").unwrap();
        assert_eq!(asked.hosts[0].get_target_session_attrs(), TargetSessionAttrs::Any);
        assert_eq!(parse("host=a,b,c port=1").unwrap().describe(), "a:1,b:1,c:1");
        for bad in ["host=a,b port=1,2,3", "host=a,b,c port=1,2", "host=a hostaddr=10.0.0.1,10.0.0.2"] {
            assert!(parse(bad).unwrap_err().is_invalid(), "{bad}");
        }
    }

    #[test]
    fn the_string_wins_over_the_environment() {
        let variables =
            [("PGHOST", "env"), ("PGUSER", "bob"), ("PGPASSWORD", "secret"), ("PGDATABASE", "envdb"), ("PGPORT", "7")];
        assert_eq!(with(Some("postgres://given/db"), &variables).describe(), "given:7/db as bob");
        let from_environment = with(None, &variables);
        assert_eq!(from_environment.describe(), "env:7/envdb as bob");
        assert_eq!(from_environment.hosts[0].get_password(), Some(&b"secret"[..]));
    }

    #[test]
    fn the_database_defaults_to_the_user() {
        assert_eq!(with(Some("host=h"), &[("USER", "carol")]).describe(), "h:5432/carol as carol");
    }

    #[test]
    fn a_password_never_shows() {
        let address = parse("postgres://u:hunter2@h/db").unwrap();
        assert!(!format!("{address:?} {}", address.describe()).contains("hunter2"));
        for bad in [
            "postgres://u:hunter2@h:x/db",
            "u hunter2",
            "password='hunter2",
            "postgres://u:hunter2@h/db?x",
            "postgres://u:12/hunter2@h/db",
            "postgres://u:p?hunter2=x@h/db",
            "postgres://u:p?x=hunter2@h/db",
        ] {
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

    /// Yields addresses in which some characters are replaced by characters with a meaning, such as `@`.
    fn damaged() -> impl Strategy<Value = String> {
        const SEEDS: [&str; 4] = [
            "postgres://u:p@[::1]:5/d?a=%41&b=c",
            "postgresql://a:1,b/%20?target_session_attrs=any",
            "host='a\\'b' port=5 user = x sslmode=prefer",
            "host=a,b hostaddr=10.0.0.1,10.0.0.2 port=1,2 connect_timeout=3",
        ];
        let odd = prop::sample::select("%'\\=@:/?&[], \u{e9}\0a1".chars().collect::<Vec<_>>());
        let places = prop::collection::vec((any::<prop::sample::Index>(), odd), 1..4);
        (prop::sample::select(&SEEDS[..]), places).prop_map(|(seed, places)| {
            let mut text: Vec<char> = seed.chars().collect();
            places.into_iter().for_each(|(place, odd)| text[place.index(seed.len())] = odd);
            text.into_iter().collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_text_is_read_or_refused_in_one_line(text in prop_oneof![damaged(), any::<String>()]) {
            match parse(&text) {
                Ok(address) => prop_assert!(!address.hosts.is_empty() && !address.describe().is_empty()),
                Err(error) => prop_assert!(error.is_invalid() && !error.to_string().contains('\n'), "{}", error),
            }
        }
    }
}
