//! Reads the links and the headings of Markdown.

/// A link, or the definition of a link's label.
#[derive(Debug)]
pub struct Link {
    /// The number of the line on which the link begins.
    pub line: usize,
    pub text: String,
    /// The label in lowercase; `None` if the target stands beside the text.
    pub label: Option<String>,
    /// The target; `None` if the label's definition has it.
    pub target: Option<String>,
    /// True for `[text]` alone, which is a link only if the text is a defined label.
    pub is_shortcut: bool,
}

impl Link {
    pub fn is_definition(&self) -> bool {
        self.label.is_some() && self.target.is_some()
    }
}

/// Returns a page's text with spaces in place of its code and comments. Each line keeps its place.
pub fn prose(text: &str) -> String {
    let mut lines = Vec::new();
    let mut fence = None;
    for line in text.lines() {
        let start = line.trim_start();
        let marks = start.len() - start.trim_start_matches('`').len();
        let is_end = fence.is_some_and(|length| marks >= length && start[marks..].trim().is_empty());
        let is_code = fence.is_some() || marks >= 3;
        if is_end {
            fence = None;
        } else if fence.is_none() && marks >= 3 {
            fence = Some(marks);
        }
        lines.push(if is_code { " ".repeat(line.len()) } else { line.to_owned() });
    }
    let comments = without(&lines.join("\n"), |text| text.starts_with("<!--").then_some("-->".to_owned()));
    without(&comments, |text| {
        let marks = text.len() - text.trim_start_matches('`').len();
        (marks > 0).then(|| "`".repeat(marks))
    })
}

/// Replaces by spaces what begins where `end_of` returns an end, up to that end. A paragraph's end ends nothing.
fn without(text: &str, end_of: impl Fn(&str) -> Option<String>) -> String {
    let (mut kept, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let end = end_of(rest);
        let start = end.as_ref().map_or(first.len_utf8(), |end| if end == "-->" { 4 } else { end.len() });
        let found = end.and_then(|end| {
            let limit = if end == "-->" { rest.len() } else { rest.find("\n\n").unwrap_or(rest.len()) };
            rest[..limit].get(start..)?.find(&end).map(|place| start + place + end.len())
        });
        let length = found.unwrap_or(start);
        let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
        if found.is_some() {
            kept.extend(rest[..length].chars().map(blank));
        } else {
            kept += &rest[..length];
        }
        rest = &rest[length..];
    }
    kept
}

/// Returns the length of the text up to the bracket that closes the bracket before the text.
fn closed(text: &str) -> Option<usize> {
    let mut depth = 1;
    let text = &text[..text.find("\n\n").unwrap_or(text.len())];
    let close = text.char_indices().find(|(_, c)| {
        depth += i32::from(*c == '[') - i32::from(*c == ']');
        depth == 0
    });
    close.map(|(place, _)| place)
}

fn label(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Returns the links of a page and the definitions of labels, without those in code and comments.
pub fn links(page: &str) -> Vec<Link> {
    let prose = prose(page);
    let mut links = Vec::new();
    for (place, _) in prose.match_indices('[') {
        let inner = &prose[place + 1..];
        let Some(length) = closed(inner) else { continue };
        let (text, rest) = (&inner[..length], &inner[length + 1..]);
        let line = prose[..place].matches('\n').count() + 1;
        let starts_line = prose[..place].ends_with('\n') || place == 0;
        // The second part of `[text][label]` is no link of its own.
        let is_second = prose[..place].ends_with(']');
        let (label, target) = if let Some(rest) = rest.strip_prefix('(') {
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            (None, Some(target.trim_matches(['<', '>']).to_owned()))
        } else if let Some(rest) = rest.strip_prefix('[') {
            let second = &rest[..closed(rest).unwrap_or(0)];
            (Some(label(if second.is_empty() { text } else { second })), None)
        } else if let Some(rest) = rest.strip_prefix(": ").filter(|_| starts_line) {
            (Some(label(text)), rest.split_whitespace().next().map(str::to_owned))
        } else {
            (Some(label(text)), None)
        };
        if is_second && target.is_none() {
            continue;
        }
        let is_shortcut = target.is_none() && !rest.starts_with('[');
        links.push(Link { line, text: text.to_owned(), label, target, is_shortcut });
    }
    links
}

/// Returns the headings of a page, each with its level.
pub fn headings(page: &str) -> Vec<(usize, String)> {
    let prose = prose(page);
    let lines = page.lines().zip(prose.lines()).filter(|(_, prose)| prose.starts_with('#')).map(|(line, _)| line);
    let heading = |line: &str| {
        let text = line.trim_start_matches('#');
        text.starts_with(' ').then(|| (line.len() - text.len(), text.trim().to_owned()))
    };
    lines.filter_map(heading).collect()
}

/// Returns the anchors of a page's headings, as GitHub and rustdoc name them.
pub fn anchors(page: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, heading) in headings(page) {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase();
        let before = anchors.iter().filter(|known| **known == anchor).count();
        anchors.push(if before == 0 { anchor } else { format!("{anchor}-{before}") });
    }
    anchors
}

#[test]
fn links_are_read_as_a_browser_shows_them() {
    let page = "# A `b` c\n\nsee [one](a.md#x), `[two](b.md)`, [three\nwords][l/m] and\n[four]. <!-- [no](c.md) -->\n\n\
        ```sh\n[five](d.md)\n```\n\n# A b c\n\n[L/M]: ../l/m.md\n";
    let found = links(page);
    let shown: Vec<_> = found.iter().map(|l| (l.line, l.label.as_deref(), l.target.as_deref())).collect();
    let expected = [
        (3, None, Some("a.md#x")),
        (3, Some("l/m"), None),
        (5, Some("four"), None),
        (13, Some("l/m"), Some("../l/m.md")),
    ];
    assert_eq!(shown, expected);
    assert!(found[2].is_shortcut && !found[1].is_shortcut);
    assert_eq!(anchors(page), ["a-b-c", "a-b-c-1"]);
}
