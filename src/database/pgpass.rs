//! Passwords from libpq's password file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::params::Params;

/// Returns the password for these parameters from `~/.pgpass`, or from the file that `passfile` names.
pub(super) fn password(params: &Params, home: Option<&Path>) -> Option<String> {
    let file = params.get("passfile").map(PathBuf::from).or_else(|| Some(home?.join(".pgpass")))?;
    let metadata = fs::metadata(&file).ok()?;
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!(
            name: "password_file.ignored", target: "reveille::database", file = %file.display(),
            "the password file is ignored, since other users can access it; run chmod 600 on it"
        );
        return None;
    }
    let param = |name: &str| params.get(name).map_or("", String::as_str);
    // For a connection through a socket, a line for localhost matches.
    let host = Some(param("host")).filter(|host| !host.is_empty() && !host.starts_with('/')).unwrap_or("localhost");
    let port = Some(param("port")).filter(|port| !port.is_empty()).unwrap_or("5432");
    find(&fs::read_to_string(&file).ok()?, [host, port, param("dbname"), param("user")])
}

/// Finds the first line with four matching fields, and returns its last field, the password.
fn find(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut found = fields(line);
        let password = (found.len() == 5).then(|| found.pop())??;
        found.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted).then_some(password)
    })
}

/// Splits a line into its fields, which are separated by colons. A backslash escapes the next character.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, fields.last_mut()) {
            (':', _) => fields.push(String::new()),
            ('\\', Some(field)) => field.extend(chars.next()),
            (c, Some(field)) => field.push(c),
            (_, None) => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "# a comment:\nh:5432:db:alice:plain\n*:*:*:bob:with\\:colon\\\\\nh:*:*:*:rest\n";

    #[test]
    fn the_first_matching_line_counts() {
        assert_eq!(find(FILE, ["h", "5432", "db", "alice"]).as_deref(), Some("plain"));
        assert_eq!(find(FILE, ["x", "1", "y", "bob"]).as_deref(), Some("with:colon\\"));
        assert_eq!(find(FILE, ["h", "1", "y", "carol"]).as_deref(), Some("rest"));
        assert_eq!(find(FILE, ["x", "1", "y", "carol"]), None);
    }

    proptest! {
        #[test]
        fn a_password_is_found_as_it_was_written(
            wanted in prop::array::uniform4("[^\\r\\n*]+"), password in "[^\\r\\n]*", before in "[^\\r\\n:]*",
            wild in 0usize..5
        ) {
            let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:").replace('#', "\\#");
            let field = |(place, field): (usize, &String)| if place == wild { "*".into() } else { escape(field) };
            let fields: Vec<String> = wanted.iter().enumerate().map(field).collect();
            let file = format!("{before}\n{}:{}\n", fields.join(":"), escape(&password));
            prop_assert_eq!(find(&file, wanted.each_ref().map(String::as_str)), Some(password));
        }

        #[test]
        fn any_file_is_searched_without_a_panic(text: String, wanted in prop::array::uniform4(".*")) {
            find(&text, wanted.each_ref().map(String::as_str));
        }
    }
}
