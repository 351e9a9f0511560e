//! Checked-in texts that the program itself writes. A test compares them with what the program says today, so that a
//! review shows each change. After an intended change, `REVEILLE_SNAPSHOT=write` makes the test write the text anew.

use std::path::{Path, PathBuf};

/// The longest line of a page.
const WIDTH: usize = 120;
/// The line before a generated part of a page ends with the name of the part and ` -->`.
const BEGIN: &str = "<!-- generated: ";
/// The line after a generated part of a page.
const END: &str = "<!-- end -->";

/// Returns the project's root. The command's tests share this module from a deeper folder.
pub fn root() -> PathBuf {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    folders.find(|folder| folder.join("migrations").is_dir()).expect("the tests run in the project").to_owned()
}

/// Compares a checked-in file with what the program says. Writes the file first if `REVEILLE_SNAPSHOT` asks for it.
pub fn compare(file: &str, actual: &str) {
    let path = root().join(file);
    if std::env::var("REVEILLE_SNAPSHOT").is_ok_and(|what| what == "write") {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    let first = expected.lines().zip(actual.lines()).position(|(expected, actual)| expected != actual);
    let at = first.unwrap_or_else(|| expected.lines().count().min(actual.lines().count()));
    let line = |text: &str| text.lines().nth(at).unwrap_or("(no line)").to_owned();
    assert!(
        expected == actual,
        "{file}, line {}: {:?} in the file, {:?} in the program; if the program is right, run this test once with \
         REVEILLE_SNAPSHOT=write",
        at + 1,
        line(&expected),
        line(actual)
    );
}

/// Returns the names of a page's generated parts.
pub fn parts(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let name = |line: &str| Some(line.strip_prefix(BEGIN)?.strip_suffix(" -->")?.to_owned());
    text.lines().filter_map(name).collect()
}

/// Compares the generated parts of a page with what the program says. The rest of the page is written by hand.
pub fn compare_parts(page: &str, generate: impl Fn(&str) -> String) {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let (mut filled, mut lines) = (String::new(), text.lines());
    while let Some(line) = lines.next() {
        filled += &format!("{line}\n");
        if let Some(name) = line.strip_prefix(BEGIN) {
            let name = name.strip_suffix(" -->").expect(line);
            assert!(lines.any(|line| line == END), "{page}: the part {name:?} has no end");
            // Blank lines keep a table from taking in the comments.
            filled += &format!("\n{}\n\n{END}\n", generate(name).trim_end());
        }
    }
    compare(page, &filled);
}

/// Returns a text as Markdown: names and quoted texts stand in backticks, and no other character has a meaning of its
/// own.
pub fn markdown(text: &str) -> String {
    outside_code(text, |text| {
        outside_code(&with_quotes(text), |text| text.split(' ').map(word).collect::<Vec<_>>().join(" "))
    })
}

/// Replaces the parts of a text that do not stand in backticks.
fn outside_code(text: &str, replaced: impl Fn(&str) -> String) -> String {
    let part = |(place, part)| if place % 2 == 0 { replaced(part) } else { format!("`{part}`") };
    text.split('`').enumerate().map(part).collect()
}

/// Puts each text in single quotes in backticks. An apostrophe within a word begins no quoted text.
fn with_quotes(text: &str) -> String {
    let (mut marked, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(" '") {
        let end = after.find('\'').filter(|end| !after[end + 1..].starts_with(char::is_alphanumeric));
        marked += before;
        match end {
            Some(end) => marked += &format!(" `'{}'`", &after[..end]),
            None => marked += " '",
        }
        rest = end.map_or(after, |end| &after[end + 1..]);
    }
    marked + rest
}

/// Returns a word with the punctuation around it as Markdown.
fn word(word: &str) -> String {
    let core = word.trim_matches(|c: char| "(),.;:'\"".contains(c));
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-*=|@".contains(c);
    let has_sign = core.contains(['_', '=']) && core.chars().any(|c| c.is_ascii_alphabetic());
    let is_start = ["--", "@", "reveille."].iter().any(|start| core.starts_with(start));
    if (has_sign || is_start || ["PG*", "NOTIFY", "-"].contains(&core)) && core.chars().all(is_name) {
        return word.replacen(core, &format!("`{core}`"), 1);
    }
    word.replace('*', "\\*").replace('<', "\\<").replace('[', "\\[")
}

/// Returns a text as a paragraph in lines of at most 120 columns. A code span stays on one line.
pub fn wrapped(text: &str) -> String {
    let (mut paragraph, mut column, mut word) = (String::new(), 0, String::new());
    for piece in text.split_whitespace() {
        word += if word.is_empty() { "" } else { " " };
        word += piece;
        if word.matches('`').count() % 2 == 1 {
            continue;
        }
        let width = word.chars().count();
        let is_first = paragraph.is_empty();
        let fits = column + 1 + width <= WIDTH;
        paragraph += if is_first {
            ""
        } else if fits {
            " "
        } else {
            "\n"
        };
        column = if is_first || !fits { width } else { column + 1 + width };
        paragraph += &std::mem::take(&mut word);
    }
    paragraph + &word
}

/// Returns a table. Its cells are Markdown.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| {
        let cell = |cell: &String| if cell.is_empty() { " ".into() } else { format!(" {} ", cell.replace('|', "\\|")) };
        let cells = cells.iter().map(cell);
        format!("|{}|\n", cells.collect::<Vec<String>>().join("|"))
    };
    let mut table = line(&head.map(str::to_owned));
    table += &format!("|{}\n", "---|".repeat(N));
    table.extend(rows.into_iter().map(|row| line(&row)));
    table
}

#[test]
fn a_text_becomes_a_paragraph_of_markdown() {
    let text = "A job's key: max_running=5, --json or 'a * b'. Write `x 'y'`, 2 * 3 or PG*; see reveille.jobs.";
    let expected =
        "A job's key: `max_running=5`, `--json` or `'a * b'`. Write `x 'y'`, 2 \\* 3 or `PG*`; see `reveille.jobs`.";
    assert_eq!(markdown(text), expected);
    let long = format!("{} `c d`", "a".repeat(WIDTH - 4));
    assert_eq!(wrapped(&long), format!("{}\n`c d`", "a".repeat(WIDTH - 4)));
}
