use clap::Args;
use serde_json::json;

use crate::connection::Connection;
use crate::progress::Progress;
use crate::{Failure, Outcome, output};

#[derive(Args)]
pub struct MigrateCommand {
    /// Change nothing; exit with 1 if the schema is missing or not current.
    #[arg(long)]
    check: bool,
    /// Change nothing; print the SQL of all migrations.
    #[arg(long, conflicts_with = "check")]
    print: bool,
    /// Change nothing; print the SQL of roles for producers, workers, monitors and administrators, each with the fewest
    /// rights that it needs.
    #[arg(long, conflicts_with_all = ["check", "print"])]
    print_grants: bool,
    /// Print a JSON object.
    #[arg(long, conflicts_with_all = ["print", "print_grants"])]
    json: bool,
}

impl MigrateCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        if self.print {
            return Ok(output::page(&reveille::database::migrations_sql(connection.schema())?)?);
        }
        if self.print_grants {
            return Ok(output::page(reveille::database::grants_sql(connection.schema())?.trim_end())?);
        }
        let progress = Progress::start(format_args!("migrating the schema {}", connection.schema()), self.json);
        let database = connection.open().await?;
        if self.check {
            return match database.check().await {
                Ok(()) => self.answer(&[], None),
                Err(error) if error.is_schema_missing() || error.is_schema_mismatch() => {
                    self.answer(&[], Some(&error.to_string()))?;
                    Err(Failure::NotFound)
                }
                Err(error) => Err(error.into()),
            };
        }
        let applied = database.migrate().await?;
        drop(progress);
        self.answer(&applied, None)
    }

    /// Prints the migrations that were applied, and why the schema is not current, if it is not.
    fn answer(&self, applied: &[String], problem: Option<&str>) -> Outcome {
        let object = json!({"current": problem.is_none(), "applied": applied, "problem": problem});
        let text = match (problem, applied) {
            (Some(problem), _) => problem.to_owned(),
            (None, []) => "the schema is current".to_owned(),
            (None, applied) => format!("applied {}", applied.join(", ")),
        };
        Ok(output::answer(self.json, object, text)?)
    }
}
