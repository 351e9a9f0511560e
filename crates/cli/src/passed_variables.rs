//! The variables of the environment that programs and children get from the worker.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use tokio::process::Command;

use crate::encryption::KEYS;

/// The variables that hold the database's address and password, besides `PG*`.
const DATABASE: [&str; 2] = ["DATABASE_URL", "REVEILLE_LISTEN_URL"];

/// The variables with the database's address and password, and with the encryption keys, that are passed on. All other
/// variables are passed on always.
pub struct PassedVariables {
    /// True if all variables of the database are passed on.
    pub all: bool,
    /// The names of the variables that are passed on. `PG*` stands for all names that begin with `PG`.
    pub names: Vec<String>,
}

impl PassedVariables {
    /// Takes the variables that are not passed on out of the command's environment.
    pub fn apply(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_secret(name) && !self.passes(name)) {
            command.env_remove(name);
        }
    }

    fn passes(&self, name: &OsStr) -> bool {
        let is_named = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.as_bytes().starts_with(start.as_bytes()),
            None => name == pattern.as_str(),
        };
        self.all && is_of_database(name) || self.names.iter().any(is_named)
    }
}

fn is_secret(name: &OsStr) -> bool {
    is_of_database(name) || name == KEYS
}

fn is_of_database(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"PG") || DATABASE.iter().any(|secret| name == *secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_variables_are_passed_on() {
        let passed = PassedVariables { all: false, names: vec!["DATABASE_URL".into(), "PGPASS*".into()] };
        let passes =
            ["DATABASE_URL", "REVEILLE_LISTEN_URL", "PGPASSWORD", "PGHOST"].map(|name| passed.passes(name.as_ref()));
        assert_eq!(passes, [true, false, true, false]);
        assert!(is_secret("PGHOST".as_ref()) && !is_secret("PATH".as_ref()));
        let all = PassedVariables { all: true, names: vec![] };
        assert!(is_secret(KEYS.as_ref()) && !all.passes(KEYS.as_ref()), "keys are no address of a database");
        assert!(PassedVariables { all: false, names: vec![KEYS.into()] }.passes(KEYS.as_ref()));
    }
}
