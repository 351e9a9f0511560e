//! Following jobs: `reveille jobs --follow`.

use std::pin::pin;

use reveille::admin::{Admin, Filter, JobRow};

use crate::work::stop_signal;
use crate::{Outcome, csv, output};

/// The form in which jobs are printed.
#[derive(Clone, Copy)]
pub enum Format {
    Lines,
    Json,
    Csv,
}

/// The columns of a line, with their least widths.
const COLUMNS: [(&str, usize); 7] =
    [("id", 9), ("state", 9), ("queue", 12), ("kind", 16), ("attempts", 8), ("failures", 8), ("last_error", 0)];

/// Prints the jobs that there are, then new and changed jobs as they come, until a signal or the reader ends this.
pub async fn run(admin: &Admin, filter: &Filter, limit: u32, format: Format) -> Outcome {
    let (mut stop, mut closed) = (pin!(stop_signal()), pin!(output::closed()));
    let mut follower = admin.follow(filter).await?;
    match format {
        Format::Lines => output::line(line(|column| column.replace('_', " ")))?,
        Format::Csv => output::csv_record(&csv::header())?,
        Format::Json => {}
    }
    print(&follower.list(limit).await?, format)?;
    loop {
        let jobs = tokio::select! {
            jobs = follower.next() => jobs?,
            () = &mut stop => return Ok(()),
            closed = &mut closed => return Err(closed.into()),
        };
        print(&jobs, format)?;
    }
}

fn print(jobs: &[JobRow], format: Format) -> std::io::Result<()> {
    for job in jobs {
        match format {
            Format::Lines => output::line(line(|column| cell(job, column)))?,
            Format::Json => output::json_line(job.record())?,
            Format::Csv => output::csv_record(&csv::cells(job))?,
        }
    }
    Ok(())
}

fn cell(job: &JobRow, column: &str) -> String {
    match column {
        "last_error" => csv::last_error(job).map_or_else(String::new, |error| output::cell(Some(error.get()))),
        column => output::cell(job.record().get(column)),
    }
}

fn line(cell: impl Fn(&str) -> String) -> String {
    let cells = COLUMNS.map(|(column, width)| format!("{:width$}", cell(column)));
    cells.join("  ").trim_end().to_owned()
}
