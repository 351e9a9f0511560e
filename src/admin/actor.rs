//! Changes on behalf of a named actor: a change and the row that records it are one transaction.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Admin, as_bytes, records};
use crate::database::Param;
use crate::database::transaction::Transaction;
use crate::error::{Error, Result};
use crate::job::{Payload, check_name};

/// The person or program on whose behalf an [`Admin`] changes things.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) name: String,
    pub(super) source: String,
    /// The name of the request that asks for the change.
    pub(super) request: Option<String>,
}

/// One change by an administrator. With an actor, its statements and the row that records it are one transaction.
/// Without an actor, each statement is a transaction of its own, and nothing is recorded.
pub(super) struct Change<'a> {
    admin: &'a Admin,
    what: &'a str,
    transaction: Option<Transaction>,
}

/// A thing whose settings are recorded before and after a change.
#[derive(Clone, Copy)]
pub(super) enum Changed<'a> {
    Job(i64),
    Queue(&'a str),
    #[cfg(feature = "schedules")]
    Schedule(&'a str),
}

/// The settings of a thing by name; `None` if the thing does not exist.
pub(super) type Settings = Option<Map<String, Value>>;

impl Admin {
    /// Returns an administrator that acts on behalf of someone: each change, and a row of `reveille.actions` that
    /// records it, are one transaction. Either both are stored or neither.
    ///
    /// `actor` names a person or a program, such as `alice@example.com`. `source` names the way by which the actor
    /// acts, such as `dashboard`. Both have 1 to 128 characters. No payload is recorded, only its hash and length.
    /// [`Admin::actions`] lists what was recorded.
    ///
    /// ```no_run
    /// # async fn example(database: reveille::Database) -> reveille::Result<()> {
    /// let alice = database.admin().acting_as("alice@example.com", "back office")?;
    /// alice.pause("mail").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Invalid if one of the names is empty, too long, or holds a NUL character. Changes of the returned administrator
    /// fail, and change nothing, if the role may not write `reveille.actions`.
    pub fn acting_as(&self, actor: impl Into<String>, source: impl Into<String>) -> Result<Admin> {
        let actor = Actor { name: actor.into(), source: source.into(), request: None };
        check_name("actor", &actor.name)?;
        check_name("source", &actor.source)?;
        Ok(Admin { database: self.database.clone(), actor: Some(Arc::new(actor)) })
    }

    /// Returns an administrator for the single change that a request asks for, such as a form that somebody has sent.
    /// The change is made once, also if the request comes twice at the same time, or to two programs. The second one
    /// gets an error for which [`Error::is_repeated`] is true. [`Admin::action_of_request`] returns what the first one
    /// has done.
    ///
    /// `request` has 1 to 128 characters. It is known for as long as the action is kept, which is 90 days. Several
    /// changes by the returned administrator need several requests.
    ///
    /// ```no_run
    /// # async fn example(database: reveille::Database, form: &str) -> reveille::Result<()> {
    /// let alice = database.admin().acting_as("alice@example.com", "back office")?;
    /// match alice.once(form)?.run_again(7).await {
    ///     Err(error) if error.is_repeated() => println!("job 7 was run again by this form before"),
    ///     again => println!("{:?}", again?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Invalid if the administrator acts on behalf of nobody, or if the name is empty, too long, or holds a NUL
    /// character.
    pub fn once(&self, request: impl Into<String>) -> Result<Admin> {
        let request = request.into();
        check_name("request", &request)?;
        let Some(Actor { name, source, .. }) = self.actor.as_deref() else {
            return Err(Error::invalid("only a change that is recorded can be made once; call acting_as first"));
        };
        let actor = Actor { name: name.clone(), source: source.clone(), request: Some(request) };
        Ok(Admin { database: self.database.clone(), actor: Some(Arc::new(actor)) })
    }

    /// Begins a change. `what` says what cannot be done if it fails: "cannot {what}".
    pub(super) fn change<'a>(&'a self, what: &'a str) -> Change<'a> {
        let transaction = self.actor.as_ref().map(|_| self.database.transaction(what));
        Change { admin: self, what, transaction }
    }

    /// Makes the error of a statement that writes `reveille.actions` say what to do if the role may not write there, or
    /// that the request was recorded before.
    pub(super) fn not_recorded(what: &str, error: Error) -> Error {
        if error.is_refused_by("actions_by_request") {
            let message = format!("cannot {what}: the same request was acted on before; nothing was changed now");
            return Error::repeated(message).with_source(error);
        }
        if !error.is_denied() {
            return error;
        }
        Error::denied(format!(
            "cannot {what}: it would have to be recorded, and this user may not write the table actions; run the SQL \
             of `reveille migrate --print-grants` and grant the user the role reveille_admin, or grant it select, \
             insert and update on reveille.actions"
        ))
        .with_source(error)
    }
}

impl Change<'_> {
    /// Runs one statement of the change.
    pub(super) async fn query(&mut self, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        self.query_applied(&self.admin.database.schema().apply(sql), params).await
    }

    /// As [`Change::query`]. The statement already names the schema of the database.
    pub(super) async fn query_applied(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        match &mut self.transaction {
            Some(transaction) => transaction.query(sql, params).await,
            None => self.admin.database.run_applied(self.what, sql, params).await,
        }
    }

    /// Runs one statement of the change whose only row has a column with the answer.
    pub(super) async fn row(&mut self, sql: &'static str, params: &[Param<'_>]) -> Result<Row> {
        let what = self.what;
        let row = self.query(sql, params).await?.into_iter().next();
        row.ok_or_else(|| Error::unavailable(format!("cannot {what}: the server returned no row")))
    }

    /// Reads and locks the settings of a thing, if the change is to be recorded.
    pub(super) async fn settings(&mut self, of: Changed<'_>) -> Result<Settings> {
        if self.transaction.is_none() {
            return Ok(None);
        }
        let rows = match of {
            Changed::Job(id) => {
                self.query(as_bytes!(include_str!("../../sql/settings_of_job.sql")), &[(&id, Type::INT8)]).await?
            }
            Changed::Queue(name) => {
                self.query(as_bytes!(include_str!("../../sql/settings_of_queue.sql")), &[(&name, Type::TEXT)]).await?
            }
            #[cfg(feature = "schedules")]
            Changed::Schedule(name) => {
                let sql = as_bytes!(include_str!("../../sql/settings_of_schedule.sql"));
                self.query(sql, &[(&name, Type::TEXT)]).await?
            }
        };
        let value = |json: &str| serde_json::from_str(json).unwrap_or_default();
        let settings = records(&rows)?.pop();
        Ok(settings.map(|settings| settings.iter().map(|(name, json)| (name.to_owned(), value(json))).collect()))
    }

    /// Records the change and commits it. Without an actor, this does nothing.
    pub(super) async fn record(self, action: &str, target: Value, detail: Value) -> Result<()> {
        self.record_with(action, target, detail, None).await
    }

    /// As [`Change::record`]. Of the payload, only its hash and length are recorded, in the detail.
    pub(super) async fn record_with(
        self,
        action: &str,
        target: Value,
        detail: Value,
        payload: Option<&Payload>,
    ) -> Result<()> {
        let (Some(transaction), Some(actor)) = (self.transaction, &self.admin.actor) else { return Ok(()) };
        let sql = self.admin.database.schema().apply(include_str!("../../sql/record_action.sql"));
        let params: [Param<'_>; 7] = [
            (&actor.name, Type::TEXT),
            (&actor.source, Type::TEXT),
            (&action, Type::TEXT),
            (&target, Type::JSONB),
            (&detail, Type::JSONB),
            (&payload, Type::JSONB),
            (&actor.request, Type::TEXT),
        ];
        let recorded = transaction.commit_with(&sql, &params).await;
        recorded.map(drop).map_err(|error| Admin::not_recorded(self.what, error))
    }

    /// Gives the change up. What it has changed is undone, if the change is to be recorded.
    pub(super) async fn give_up(self) {
        if let Some(transaction) = self.transaction {
            transaction.roll_back().await;
        }
    }

    /// Gives the transaction of the change for further statements of the run that it belongs to.
    pub(super) fn into_transaction(self) -> Option<Transaction> {
        self.transaction
    }
}

/// Returns the detail of a change: the answer, and the settings that differ, with their old and new values.
pub(super) fn difference(answer: &str, before: Settings, after: Settings) -> Value {
    let (mut old, mut new) = (before.unwrap_or_default(), after.unwrap_or_default());
    let differs = |one: &Map<String, Value>, other: &Map<String, Value>, name: &str| {
        one.get(name).unwrap_or(&Value::Null) != other.get(name).unwrap_or(&Value::Null)
    };
    let changed: Vec<String> = old.keys().chain(new.keys()).filter(|name| differs(&old, &new, name)).cloned().collect();
    if changed.is_empty() {
        return json!({"answer": answer});
    }
    old.retain(|name, _| changed.contains(name));
    new.retain(|name, _| changed.contains(name));
    json!({"answer": answer, "old": old, "new": new})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(value: Value) -> Settings {
        value.as_object().cloned()
    }

    #[test]
    fn a_difference_has_only_what_changed() {
        let (before, after) = (json!({"a": 1, "b": null, "c": 2}), json!({"a": 1, "b": 3, "c": null}));
        let expected = json!({"answer": "set", "old": {"b": null, "c": 2}, "new": {"b": 3, "c": null}});
        assert_eq!(difference("set", settings(before), settings(after)), expected);
    }

    #[test]
    fn a_new_thing_has_no_old_settings_and_a_removed_thing_no_new_ones() {
        let some = || settings(json!({"a": 1, "b": null}));
        assert_eq!(difference("set", None, some()), json!({"answer": "set", "old": {}, "new": {"a": 1}}));
        assert_eq!(difference("removed", some(), None), json!({"answer": "removed", "old": {"a": 1}, "new": {}}));
        assert_eq!(difference("unknown", None, None), json!({"answer": "unknown"}));
    }
}
