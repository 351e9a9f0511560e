//! Reads the shell's language as far as pages use it.

use std::iter::Peekable;
use std::str::Chars;

/// Returns the blocks of shell commands on a page, each with the number of its first line.
pub fn blocks(page: &str) -> Vec<(usize, String)> {
    let (mut blocks, mut open) = (Vec::<(usize, String)>::new(), None);
    for (place, line) in page.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open) {
            (Some(_), Some(_)) => open = None,
            (Some(language), None) => {
                open = Some(language == "sh");
                if language == "sh" {
                    blocks.push((place + 2, String::new()));
                }
            }
            (None, Some(true)) => {
                if let Some((_, block)) = blocks.last_mut() {
                    *block += &format!("{line}\n");
                }
            }
            (None, _) => {}
        }
    }
    blocks
}

/// The words of a text that the shell would run as commands.
struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    /// The number of line ends before the rest.
    line: usize,
    unknown: &'a str,
    commands: Vec<(usize, Vec<String>)>,
    words: Vec<String>,
    /// The word under way; `None` between words.
    word: Option<String>,
    /// True if the next word names a file, as after `>`.
    is_file: bool,
}

/// Returns the commands of a text, each with its words and with the number of line ends before it. `unknown` stands for
/// each value that only the shell knows.
///
/// # Errors
/// If a quoted text has no end.
pub fn commands<'a>(text: &'a str, unknown: &'a str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let mut reader = Reader {
        rest: text.chars().peekable(),
        line: 0,
        unknown,
        commands: Vec::new(),
        words: Vec::new(),
        word: None,
        is_file: false,
    };
    while let Some(next) = reader.rest.next() {
        reader.read(next)?;
    }
    reader.end_command();
    Ok(reader.commands)
}

impl Reader<'_> {
    fn read(&mut self, next: char) -> Result<(), String> {
        match next {
            '\'' => self.quoted('\'')?,
            '"' => self.quoted('"')?,
            '\\' => match self.rest.next() {
                Some('\n') => self.line += 1,
                Some(escaped) => self.push(escaped),
                None => {}
            },
            '$' => self.value(),
            '#' if self.word.is_none() => while self.rest.next_if(|c| *c != '\n').is_some() {},
            '\n' => {
                self.end_command();
                self.line += 1;
            }
            ';' | '&' | '|' | '(' | ')' => self.end_command(),
            '<' | '>' => {
                // `2>&1`: the number belongs to the sign.
                self.word = self.word.take().filter(|word| !word.chars().all(|c| c.is_ascii_digit()));
                self.end_word();
                while self.rest.next_if(|c| "<>&".contains(*c)).is_some() {}
                self.is_file = true;
            }
            ' ' | '\t' => self.end_word(),
            other => self.push(other),
        }
        Ok(())
    }

    fn push(&mut self, next: char) {
        self.word.get_or_insert_default().push(next);
    }

    /// Reads a quoted text. The shell replaces values within double quotes.
    fn quoted(&mut self, end: char) -> Result<(), String> {
        self.word.get_or_insert_default();
        while let Some(next) = self.rest.next() {
            match next {
                _ if next == end => return Ok(()),
                '\n' => {
                    self.line += 1;
                    self.push(next);
                }
                '$' if end == '"' => self.value(),
                '\\' if end == '"' => match self.rest.next() {
                    Some(escaped) if "\\\"$`".contains(escaped) => self.push(escaped),
                    Some(escaped) => [next, escaped].into_iter().for_each(|c| self.push(c)),
                    None => {}
                },
                other => self.push(other),
            }
        }
        Err(format!("the block has a {end} without its end; mark output as text"))
    }

    /// Reads a value such as `$name`, `${name}` or `$(command)` after its `$`.
    fn value(&mut self) {
        let unknown = self.unknown.to_owned();
        self.word.get_or_insert_default().push_str(&unknown);
        let Some(open) = self.rest.next_if(|c| "({".contains(*c)) else {
            while self.rest.next_if(|c| c.is_alphanumeric() || *c == '_').is_some() {}
            return;
        };
        let close = if open == '(' { ')' } else { '}' };
        let mut depth = 1;
        while let Some(next) = self.rest.next().filter(|_| depth > 0) {
            depth += i32::from(next == open) - i32::from(next == close);
            self.line += usize::from(next == '\n');
            if depth == 0 {
                return;
            }
        }
    }

    fn end_word(&mut self) {
        if let Some(word) = self.word.take()
            && !std::mem::take(&mut self.is_file)
        {
            self.words.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        let words = std::mem::take(&mut self.words);
        if !words.is_empty() {
            let lines = words.iter().map(|word| word.matches('\n').count()).sum::<usize>();
            self.commands.push((self.line - lines.min(self.line), words));
        }
    }
}

#[test]
fn a_shells_words_are_read() {
    let text = "a 'b c' \"d $e \\\"f\\\"\" \\\n  g=$(h 'i' (j)) >k 2>&1 # l\nm; n && o | p\nq '\nr'";
    let read: Vec<(usize, String)> =
        commands(text, "7").unwrap().into_iter().map(|(line, words)| (line, words.join("|"))).collect();
    let expected = [(1, "a|b c|d 7 \"f\"|g=7"), (2, "m"), (2, "n"), (2, "o"), (2, "p"), (3, "q|\nr")];
    assert_eq!(read, expected.map(|(line, words)| (line, words.to_owned())));
    assert!(commands("it's", "7").is_err());
}
