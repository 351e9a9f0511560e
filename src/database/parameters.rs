//! libpq's parameters and environment variables: each is honoured, ignored or refused. A parameter for security is
//! never ignored, since a user who sets the parameter relies on it. `docs/design/addresses.md` has the whole list.

use std::collections::BTreeMap;

use super::params::Params;
use crate::error::{Error, Result};

/// The parameters that tokio-postgres honours.
pub(super) const PASSED_ON: [&str; 19] = [
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

/// The parameters that this crate honours.
const HONOURED: [&str; 12] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcertmode",
    "sslcrl",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "gssencmode",
    "passfile",
    "fallback_application_name",
];

/// The parameters that are ignored without harm. The encoding is always UTF-8, nothing is compressed, no TLS keys are
/// logged, GSSAPI is not used, the protocol is 3.0, and a service file matters only with the parameter `service`, which
/// is refused.
const HARMLESS: [&str; 8] = [
    "client_encoding",
    "sslcompression",
    "sslkeylogfile",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "max_protocol_version",
    "servicefile",
];

/// The parameters that are refused, each with what to do instead.
const REFUSED: [(&str, &str); 13] = [
    ("requirepeer", "connect by TCP with sslmode=verify-full"),
    ("sslcrldir", "name a single file of revoked certificates as sslcrl"),
    ("sslpassword", "use a key without a password"),
    ("service", "write the parameters of the service into the address"),
    ("replication", "leave it out"),
    ("requiressl", "use sslmode=require"),
    ("scram_client_key", "use a password"),
    ("scram_server_key", "use a password"),
    ("oauth_issuer", "use a password or a certificate"),
    ("oauth_client_id", "use a password or a certificate"),
    ("oauth_client_secret", "use a password or a certificate"),
    ("oauth_scope", "use a password or a certificate"),
    ("oauth_ca_file", "use a password or a certificate"),
];

/// The environment variables, and the parameters that they set.
///
/// libpq's other variables are ignored without harm. The reasons of `HARMLESS` hold for `PGCLIENTENCODING`,
/// `PGSSLCOMPRESSION`, `PGKRBSRVNAME`, `PGGSSLIB`, `PGGSSDELEGATION`, `PGMAXPROTOCOLVERSION`, `PGSERVICEFILE`,
/// `PGSYSCONFDIR` and `PGLOCALEDIR`. `PGDATESTYLE`, `PGTZ` and `PGGEQO` change statements that Reveille does not make.
const VARIABLES: [(&str, &str); 28] = [
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
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLSNI", "sslsni"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGMINPROTOCOLVERSION", "min_protocol_version"),
    ("PGPASSFILE", "passfile"),
];

/// Adds the environment's parameters that the address lacks. Returns the variable's name for each added parameter.
pub(super) fn add_variables(
    params: &mut Params,
    variable: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<&'static str, &'static str> {
    let mut sources = BTreeMap::new();
    for (name, key) in VARIABLES.into_iter().chain([("PGSERVICE", "service")]) {
        // If `host` or `hostaddr` is set already, the environment adds neither.
        if matches!(key, "host" | "hostaddr") && (params.contains_key("host") || params.contains_key("hostaddr")) {
            continue;
        }
        if let Some(value) = variable(name).filter(|_| !params.contains_key(key)) {
            params.insert(key.into(), value);
            sources.insert(key, name);
        }
    }
    // libpq still honours the old variable `PGREQUIRESSL`.
    if variable("PGREQUIRESSL").is_some_and(|value| value.starts_with('1')) {
        params.entry("sslmode".into()).or_insert_with(|| "require".into());
    }
    sources
}

/// Refuses unknown parameters, and parameters that are neither honoured nor harmless. An empty value counts as absent.
pub(super) fn check(params: &Params, sources: &BTreeMap<&'static str, &'static str>) -> Result<()> {
    for (key, value) in params.iter().filter(|(_, value)| !value.is_empty()) {
        let key = key.as_str();
        let name = sources.get(key).copied().unwrap_or(key);
        let refused = |instead: &str| Err(Error::invalid(format!("{name} is not supported; {instead}")));
        if let Some((_, instead)) = REFUSED.iter().find(|(refused, _)| *refused == key) {
            return refused(instead);
        }
        match (key, value.as_str()) {
            ("require_auth", methods) if !only_scram(params, methods) => {
                return refused("set channel_binding=require and sslmode=verify-full, which allow only SCRAM");
            }
            ("sslcertmode", "require") => return refused("leave it out"),
            ("gssencmode", "require") => return refused("use sslmode=verify-full"),
            ("min_protocol_version", version) if version != "3.0" => return refused("leave it out"),
            ("require_auth" | "min_protocol_version", _) => {}
            _ if PASSED_ON.contains(&key) || HONOURED.contains(&key) || HARMLESS.contains(&key) => {}
            _ => {
                let message = format!("unknown parameter {key:?} in the database's address; check its spelling");
                return Err(Error::invalid(message));
            }
        }
    }
    Ok(())
}

/// True if tokio-postgres uses only the methods that `require_auth` names. If channel binding is required,
/// tokio-postgres uses SCRAM alone.
fn only_scram(params: &Params, methods: &str) -> bool {
    const SCRAM: &str = "scram-sha-256";
    let allowed = match methods.starts_with('!') {
        true => methods.split(',').all(|method| method.trim().strip_prefix('!') != Some(SCRAM)),
        false => methods.split(',').any(|method| method.trim() == SCRAM),
    };
    allowed && params.get("channel_binding").is_some_and(|binding| binding == "require")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::address::Address;

    fn refusal(text: &str, variables: &[(&str, &str)]) -> Option<String> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let error = Address::parse_in(Some(text), &find).err()?;
        assert!(error.is_invalid(), "{error}");
        Some(error.to_string())
    }

    #[test]
    fn an_unsupported_security_parameter_is_refused_by_name() {
        for (parameter, value) in [
            ("require_auth", "scram-sha-256"),
            ("require_auth", "!password"),
            ("requirepeer", "postgres"),
            ("sslcrldir", "/etc/crl"),
            ("sslcertmode", "require"),
            ("gssencmode", "require"),
            ("service", "prod"),
            ("sslpassword", "hunter2"),
            ("min_protocol_version", "3.2"),
            ("oauth_client_secret", "hunter2"),
        ] {
            for text in
                [format!("host=h sslmode=disable {parameter}={value}"), format!("postgres://h/?{parameter}={value}")]
            {
                let error = refusal(&text, &[]).expect(&text);
                assert!(error.starts_with(&format!("{parameter} is not supported")), "{error}");
                assert!(!error.contains("hunter2"), "{error}");
            }
            assert_eq!(refusal(&format!("host=h {parameter}=''"), &[]), None, "an empty value counts as absent");
        }
    }

    #[test]
    fn an_unsupported_security_variable_is_refused_by_name() {
        for (variable, value) in [
            ("PGREQUIREAUTH", "scram-sha-256"),
            ("PGREQUIREPEER", "postgres"),
            ("PGSSLCRLDIR", "/etc/crl"),
            ("PGSSLCERTMODE", "require"),
            ("PGGSSENCMODE", "require"),
            ("PGSERVICE", "prod"),
            ("PGMINPROTOCOLVERSION", "3.2"),
        ] {
            let error = refusal("postgres://h/db", &[(variable, value)]).expect(variable);
            assert!(error.starts_with(&format!("{variable} is not supported")), "{error}");
        }
    }

    #[test]
    fn required_methods_are_accepted_with_channel_binding() {
        for methods in ["scram-sha-256", "md5,scram-sha-256", "!password,!md5"] {
            assert_eq!(refusal(&format!("host=h channel_binding=require require_auth={methods}"), &[]), None);
        }
        for methods in ["md5", "none", "gss,sspi", "!scram-sha-256"] {
            assert!(refusal(&format!("host=h channel_binding=require require_auth={methods}"), &[]).is_some());
        }
    }

    #[test]
    fn each_parameter_of_libpq_is_in_exactly_one_list() {
        // The parameters of version 18, as PQconndefaults returns them, without the parameters for debugging.
        let libpq = "service servicefile user password passfile channel_binding connect_timeout dbname host hostaddr \
            port client_encoding options application_name fallback_application_name keepalives keepalives_idle \
            keepalives_interval keepalives_count tcp_user_timeout sslmode sslnegotiation sslcompression sslcert sslkey \
            sslcertmode sslpassword \
            sslrootcert sslcrl sslcrldir sslsni requirepeer require_auth min_protocol_version max_protocol_version \
            ssl_min_protocol_version ssl_max_protocol_version gssencmode krbsrvname gsslib gssdelegation replication \
            target_session_attrs load_balance_hosts scram_client_key scram_server_key sslkeylogfile oauth_issuer \
            oauth_client_id oauth_client_secret oauth_scope";
        for parameter in libpq.split_whitespace() {
            let refused = REFUSED.iter().filter(|(name, _)| *name == parameter).count();
            let lists = [&PASSED_ON[..], &HONOURED, &HARMLESS, &["require_auth", "min_protocol_version"]];
            let listed = lists.iter().filter(|list| list.contains(&parameter)).count();
            assert_eq!(refused + listed, 1, "{parameter}");
        }
        for (variable, parameter) in VARIABLES {
            assert!(libpq.split_whitespace().any(|known| known == parameter), "{variable}");
        }
    }

    #[test]
    fn an_old_variable_still_asks_for_encryption() {
        let parse = |text: &str, value: &str| {
            let find = |name: &str| (name == "PGREQUIRESSL").then(|| value.to_owned());
            format!("{:?}", Address::parse_in(Some(text), &find).unwrap().security())
        };
        assert!(parse("host=h", "1").contains("Require"));
        assert!(!parse("host=h", "0").contains("Require") && !parse("host=h sslmode=prefer", "1").contains("Require"));
    }
}
