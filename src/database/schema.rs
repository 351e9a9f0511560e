//! The schema that is in use.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// The schema that Reveille's tables live in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema(Cow<'static, str>);

impl Default for Schema {
    fn default() -> Schema {
        Schema(Cow::Borrowed("reveille"))
    }
}

impl Schema {
    /// A plain lower-case identifier, so that it never needs quoting, neither in a statement nor in a channel's name.
    pub(crate) fn new(name: &str) -> Result<Schema> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty()
            || name.len() > 40
            || !name.chars().all(plain)
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            return Err(Error::invalid(format!(
                "schema {name:?} must be 1 to 40 of a-z, 0-9 and _, and not start with a digit"
            )));
        }
        Ok(Schema(Cow::Owned(name.to_owned())))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// The SQL with every `reveille.` meaning this schema: tables, functions, channels and settings alike.
    pub(crate) fn apply(&self, sql: &'static str) -> Cow<'static, str> {
        if self.0 == "reveille" {
            Cow::Borrowed(sql)
        } else {
            Cow::Owned(sql.replace("reveille.", &format!("{}.", self.0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_name_is_plain_or_refused() {
        assert!(Schema::new("jobs_2").is_ok());
        for name in ["", "Jobs", "a b", "a;b", "2jobs", "a\"b", &"x".repeat(41)] {
            assert!(Schema::new(name).unwrap_err().is_invalid(), "{name}");
        }
    }

    #[test]
    fn another_schema_replaces_every_prefix() {
        let sql = Schema::new("other").unwrap().apply("select reveille.ring() from reveille.jobs");
        assert_eq!(sql, "select other.ring() from other.jobs");
    }
}
