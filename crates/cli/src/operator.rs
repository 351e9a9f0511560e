//! The operator: the user of the operating system on whose behalf the command changes things.

use std::env;

use rustix::process::getuid;
use rustix::system::uname;

/// The most characters of a name in `reveille.actions`.
const LONGEST: usize = 128;

/// Returns the operator's name, such as `alice@web-1`.
pub fn name() -> String {
    let uid = getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    // A user from a directory service is not in the file.
    let user = user(&passwd, uid).map(str::to_owned).or_else(|| variable("LOGNAME")).or_else(|| variable("USER"));
    let user = user.unwrap_or_else(|| format!("uid-{uid}"));
    let host = uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}").replace('\0', "").chars().take(LONGEST).collect()
}

/// Returns the name of the user with this id.
fn user(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, id) = (fields.next()?, fields.next()?, fields.next()?);
        (!name.is_empty() && id.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_id() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\nodd\n+::::::\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!([0, 1000, 7].map(|uid| user(passwd, uid)), [Some("root"), Some("alice"), None]);
    }

    #[test]
    fn the_operator_is_a_user_at_a_host() {
        let name = name();
        let (user, host) = name.split_once('@').unwrap();
        assert!(!user.is_empty() && !host.is_empty() && name.chars().count() <= LONGEST, "{name}");
    }
}
