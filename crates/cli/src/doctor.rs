use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use reveille::admin::doctor::{CHECKS, Finding, Verdict};
use serde_json::json;

use crate::connection::{self, Connection};
use crate::{Failure, Outcome, output};

#[derive(Args)]
pub struct DoctorCommand {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    /// Ignore the findings of this check. May be repeated.
    #[arg(long = "ignore", value_name = "CHECK", value_parser = PossibleValuesParser::new(CHECKS))]
    ignored: Vec<String>,
    /// The age from which a transaction is worth a note. A transaction twelve times as old is bad.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = connection::duration)]
    patience: Duration,
}

impl DoctorCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        // This connects without a check of the schema, since the doctor makes that check.
        let database = connection.open().await?;
        let mut findings = database.doctor().patience(self.patience).examine().await?;
        findings.retain(|found| !self.ignored.contains(&found.check));
        if self.json {
            for Finding { check, state, finding, advice, .. } in &findings {
                let state = state.to_string();
                output::line(json!({"check": check, "state": state, "finding": finding, "advice": advice}))?;
            }
        } else {
            print(&findings)?;
        }
        if findings.iter().any(|found| found.state == Verdict::Bad) { Err(Failure::NotFound) } else { Ok(()) }
    }
}

/// Prints one line per finding, and the advice in the line below.
fn print(findings: &[Finding]) -> std::io::Result<()> {
    let width = findings.iter().map(|found| found.check.len()).max().unwrap_or(0);
    output::line(format_args!("{:width$}  state  finding", "check"))?;
    for Finding { check, state, finding, advice, .. } in findings {
        output::line(format_args!("{check:width$}  {state:5}  {}", finding))?;
        if let Some(advice) = advice {
            output::line(format_args!("{:width$}  {:5}  -> {}", "", "", advice))?;
        }
    }
    Ok(())
}
