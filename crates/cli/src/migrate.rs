use clap::Args;

use crate::connection::Connection;
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
}

impl MigrateCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        if self.print {
            return Ok(output::page(&reveille::database::migrations_sql(connection.schema())?)?);
        }
        if self.print_grants {
            return Ok(output::page(reveille::database::grants_sql(connection.schema())?.trim_end())?);
        }
        let database = connection.open().await?;
        if self.check {
            return match database.check().await {
                Ok(()) => Ok(output::line("the schema is current")?),
                Err(error) if error.is_schema_missing() || error.is_schema_mismatch() => {
                    output::line(error)?;
                    Err(Failure::NotFound)
                }
                Err(error) => Err(error.into()),
            };
        }
        let applied = database.migrate().await?;
        match &applied[..] {
            [] => output::line("the schema is current")?,
            applied => output::line(format!("applied {}", applied.join(", ")))?,
        }
        Ok(())
    }
}
