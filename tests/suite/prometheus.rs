//! A parser of Prometheus' text format.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Samples by name and labels.
#[derive(Debug)]
pub struct Samples(pub HashMap<(String, BTreeMap<String, String>), f64>);

impl Samples {
    pub fn of(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.0.get(&(name.to_owned(), labels)).copied()
    }
}

/// Parses a page. Panics at any text that the format's specification does not allow.
pub fn parse(page: &str) -> Samples {
    assert!(page.ends_with('\n'), "the last line ends with a line feed");
    let (mut samples, mut heads, mut metric) = (HashMap::new(), HashSet::new(), None);
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let name = help.split(' ').next().unwrap();
            assert!(heads.insert(name.to_owned()), "one head for each metric: {line}");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).expect("help, then the type");
            let is_sound = match kind {
                "counter" => name.ends_with("_total"),
                kind => kind == "gauge" || kind == "histogram",
            };
            assert!(is_sound, "{name} {kind}");
            metric = Some((name.to_owned(), kind == "histogram"));
        } else if !line.starts_with("# ") {
            let (name, labels, value) = sample(line);
            let (metric, is_histogram) = metric.as_ref().expect("samples follow their head");
            let suffix = name.strip_prefix(metric.as_str()).expect("samples follow their head");
            let is_bucket = suffix == "_bucket" && labels.contains_key("le");
            let fits =
                if *is_histogram { is_bucket || ["_count", "_sum"].contains(&suffix) } else { suffix.is_empty() };
            assert!(fits, "{line}");
            assert!(samples.insert((name, labels), value).is_none(), "a sample occurs twice: {line}");
        }
    }
    Samples(samples)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Parses `name{label="value",…} 1.5`.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = (&line[..end], &line[end..]);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, value) = rest.split_once("=\"").unwrap();
            let (value, after) = quoted(value);
            assert!(is_name(label) && labels.insert(label.to_owned(), value).is_none(), "{line}");
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').unwrap();
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap();
    assert!(is_name(name) && !value.contains(' '), "{line}");
    (name.to_owned(), labels, value.parse().unwrap())
}

/// Returns the unescaped text before the closing quote, and the rest after the quote.
fn quoted(text: &str) -> (String, &str) {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((place, c)) = chars.next() {
        match c {
            '"' => return (value, &text[place + 1..]),
            '\\' => value.push(match chars.next().unwrap().1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                c => panic!("\\{c} is no escape"),
            }),
            c => value.push(c),
        }
    }
    panic!("no closing quote: {text}")
}
