//! `man`: manual pages.

use std::io;
use std::path::PathBuf;

use clap::{Args, Command, ValueHint};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::completions::visible;
use crate::{Outcome, examples, output};

#[derive(Args)]
pub struct ManCommand {
    /// Write a page for each command into this folder, and print the names of the files.
    #[arg(long, value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

const EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "Done."),
    ("1", "Not found or not healthy."),
    ("2", "An error: one line on standard error says what to do."),
];

impl ManCommand {
    pub fn run(self) -> Outcome {
        let mut root = visible().disable_help_subcommand(true);
        root.build();
        let Some(dir) = self.dir else {
            return Ok(output::page(page(&root)?.trim_end())?);
        };
        std::fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        let mut commands = vec![&root];
        while let Some(command) = commands.pop() {
            let file = dir.join(format!("{}.1", command.get_display_name().unwrap_or(command.get_name())));
            std::fs::write(&file, page(command)?)
                .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
            output::line(file.display())?;
            commands.extend(command.get_subcommands());
        }
        Ok(())
    }
}

/// Returns the manual page of a command.
fn page(command: &Command) -> io::Result<String> {
    let mut page = Vec::new();
    let man = Man::new(command.clone()).manual("Reveille").source(concat!("reveille ", env!("CARGO_PKG_VERSION")));
    man.render(&mut page)?;
    let mut more = Roff::new();
    if command.get_name() == "reveille" {
        more.control("SH", ["EXIT STATUS"]);
        for (status, meaning) in EXIT_STATUS {
            more.control("TP", []).text([roman(status)]).text([roman(meaning)]);
        }
    }
    more.control("SH", ["EXAMPLES"]).control("nf", []);
    for line in examples::of(command.get_bin_name().unwrap_or(command.get_name())) {
        more.text([roman(*line)]);
    }
    more.control("fi", []);
    // A formatter would show a bare apostrophe as a quotation mark, which a shell does not understand.
    Ok(String::from_utf8_lossy(&page).into_owned() + &more.to_roff().replace('\'', r"\*(Aq"))
}
