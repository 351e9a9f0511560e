//! The name of the schema of Reveille's tables.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// The name of the schema of Reveille's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema(Cow<'static, str>);

/// The words that need quotes as a schema's name in Postgres 14 to 18.
#[rustfmt::skip]
const RESERVED: [&str; 164] = [
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "between",
    "bigint", "binary", "bit", "boolean", "both", "case", "cast", "char", "character", "check", "coalesce", "collate",
    "collation", "column", "concurrently", "constraint", "create", "cross", "current_catalog", "current_date",
    "current_role", "current_schema", "current_time", "current_timestamp", "current_user", "dec", "decimal",
    "default", "deferrable", "desc", "distinct", "do", "else", "end", "except", "exists", "extract", "false", "fetch",
    "float", "for", "foreign", "freeze", "from", "full", "grant", "greatest", "group", "grouping", "having", "ilike",
    "in", "initially", "inner", "inout", "int", "integer", "intersect", "interval", "into", "is", "isnull", "join",
    "json", "json_array", "json_arrayagg", "json_exists", "json_object", "json_objectagg", "json_query",
    "json_scalar", "json_serialize", "json_table", "json_value", "lateral", "leading", "least", "left", "like",
    "limit", "localtime", "localtimestamp", "merge_action", "national", "natural", "nchar", "none", "normalize",
    "not", "notnull", "null", "nullif", "numeric", "offset", "on", "only", "or", "order", "out", "outer", "overlaps",
    "overlay", "placing", "position", "precision", "primary", "real", "references", "returning", "right", "row",
    "select", "session_user", "setof", "similar", "smallint", "some", "substring", "symmetric", "system_user",
    "table", "tablesample", "then", "time", "timestamp", "to", "trailing", "treat", "trim", "true", "union", "unique",
    "user", "using", "values", "varchar", "variadic", "verbose", "when", "where", "window", "with", "xmlattributes",
    "xmlconcat", "xmlelement", "xmlexists", "xmlforest", "xmlnamespaces", "xmlparse", "xmlpi", "xmlroot",
    "xmlserialize", "xmltable",
];

impl Default for Schema {
    fn default() -> Schema {
        Schema(Cow::Borrowed("reveille"))
    }
}

impl Schema {
    /// Checks that a name is a lower-case identifier that needs no quotes in a statement or in a channel's name.
    pub(crate) fn new(name: &str) -> Result<Schema> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty()
            || name.len() > 40
            || !name.chars().all(plain)
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            return Err(Error::invalid(format!(
                "the schema name {name:?} must have 1 to 40 of a-z, 0-9 and _, and not start with a digit"
            )));
        }
        if RESERVED.contains(&name) {
            return Err(Error::invalid(format!(
                "the schema name {name:?} is a keyword of SQL, which would need quotes; use another name"
            )));
        }
        if name.starts_with("pg_") || name == "information_schema" {
            return Err(Error::invalid(format!("the schema name {name:?} is the server's own; use another")));
        }
        Ok(Schema(Cow::Owned(name.to_owned())))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Replaces each `reveille.` in the SQL by this schema: in the names of tables, functions, channels and settings.
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
    fn a_schema_name_that_needs_quotes_is_refused() {
        assert!(Schema::new("jobs_2").is_ok());
        for name in ["", "Jobs", "a b", "a;b", "2jobs", "a\"b", &"x".repeat(41)] {
            assert!(Schema::new(name).unwrap_err().is_invalid(), "{name}");
        }
    }

    #[test]
    fn another_schema_replaces_each_prefix() {
        let sql = Schema::new("other").unwrap().apply("select reveille.ring() from reveille.jobs");
        assert_eq!(sql, "select other.ring() from other.jobs");
    }
}
