//! The page on the doctor has a section for each check, and names each finding there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use reveille::admin::doctor::CHECKS;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns the page's sections by their headings, each as one line, and the headings in their order.
fn sections(page: &str) -> (BTreeMap<&str, String>, Vec<&str>) {
    let parts: Vec<(&str, &str)> = page.split("\n## ").skip(1).filter_map(|part| part.split_once('\n')).collect();
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let headings = parts.iter().map(|(heading, _)| *heading).collect();
    (parts.into_iter().map(|(heading, text)| (heading, one_line(text))).collect(), headings)
}

/// Returns the string literals of a piece of SQL. Literals on successive lines are one, as they are for the server.
fn sql_literals(sql: &str) -> Vec<String> {
    let mut literals: Vec<String> = Vec::new();
    let (mut rest, mut joins) = (sql, false);
    while let Some(start) = rest.find('\'') {
        joins &= rest[..start].trim().is_empty();
        let mut literal = String::new();
        rest = &rest[start + 1..];
        loop {
            let end = rest.find('\'').expect("each literal ends");
            literal.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            let Some(quoted) = rest.strip_prefix('\'') else { break };
            literal.push('\'');
            rest = quoted;
        }
        match literals.last_mut().filter(|_| joins) {
            Some(last) => last.push_str(&literal),
            None => literals.push(literal),
        }
        joins = true;
    }
    literals
}

/// True if the quote is an excerpt of the message. A quote has the character … where it leaves something out.
fn is_quoted(message: &str, quote: &str) -> bool {
    let mut rest = message;
    quote.split('…').map(str::trim).all(|part| {
        let Some(place) = rest.find(part) else { return false };
        rest = &rest[place + part.len()..];
        true
    })
}

/// Returns the longest quote from a message between backticks in a section.
fn quote_of<'a>(message: &str, section: &'a str) -> Option<&'a str> {
    let quotes = section.split('`').skip(1).step_by(2);
    quotes.filter(|quote| is_quoted(message, quote)).max_by_key(|quote| quote.len())
}

/// Returns the findings of a file in `sql/`, each as its check and its message.
///
/// Each arm of the union `found` selects the name of the check, the state, and then the message: the first long
/// literal. Arms about settings have a list of settings instead, each with its name first.
fn findings_in_sql(file: &str, sql: &str) -> Vec<(String, String)> {
    let sql: Vec<&str> = sql.lines().filter(|line| !line.trim_start().starts_with("-- ")).collect();
    let sql = sql.join("\n");
    let found = sql.split("\nfound (").nth(1).unwrap_or_else(|| panic!("{file} has a table of findings"));
    let found = &found[..found.find("\n)").unwrap()];
    let mut findings = Vec::new();
    for arm in found.split("union all") {
        let literals = sql_literals(arm);
        let check = literals.iter().find(|literal| CHECKS.contains(&literal.as_str()));
        let check = check.map_or("isolated", String::as_str).to_owned();
        if arm.contains(" as rule (") {
            let (_, settings) = arm.split_once("values").unwrap();
            let named = settings.split('(').filter_map(|row| row.trim_start().strip_prefix('\''));
            findings.extend(named.map(|row| (check.clone(), row.split('\'').next().unwrap().to_owned())));
        } else {
            let message = literals.iter().find(|literal| literal.len() > 12 && literal.contains(' '));
            let message = message.unwrap_or_else(|| panic!("{file}: a message in {arm}"));
            findings.push((check, message.clone()));
        }
    }
    findings
}

/// Returns the findings that the Rust code writes: the calls of `note` and `bad` with the name of a check and a text.
fn findings_in_rust(code: &str) -> Vec<(String, String)> {
    let calls = code.split("note(").skip(1).chain(code.split("bad(").skip(1));
    let finding = |call: &str| {
        let (check, rest) = call.trim_start().strip_prefix('"')?.split_once("\",")?;
        let rest = rest.trim_start();
        let text = rest.strip_prefix("format!(").unwrap_or(rest).trim_start().strip_prefix('"')?;
        let text = text.split('"').next()?.replace("\\\n", "");
        Some((check.to_owned(), text.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    calls.filter_map(finding).collect()
}

#[test]
fn the_page_has_a_section_for_each_check_and_names_each_finding() {
    let page = read("docs/running/doctor.md");
    let (sections, headings) = sections(&page);
    assert_eq!(headings, CHECKS);

    let code = read("src/admin/doctor.rs");
    let mut findings = findings_in_rust(&code);
    assert!(findings.len() >= 2, "{findings:?}");
    let files: Vec<&str> =
        code.split("include_str!(\"../../").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        findings.extend(findings_in_sql(file, &read(file)));
    }
    assert!(findings.len() > 50, "{findings:?}");
    let checks_with_findings = CHECKS.iter().filter(|check| findings.iter().any(|(of, _)| of == *check)).count();
    assert!(checks_with_findings > 20, "{findings:?}");
    let mut quotes = BTreeMap::new();
    for (check, message) in &findings {
        let quote = quote_of(message, &sections[check.as_str()]);
        let quote = quote.unwrap_or_else(|| panic!("docs/running/doctor.md lacks {message:?} under {check}"));
        if let Some(other) = quotes.insert((check, quote), message) {
            panic!("docs/running/doctor.md, {check}: {quote:?} stands for {message:?} and {other:?}");
        }
    }
}

#[test]
fn findings_are_read_from_sql_and_rust() {
    let sql = "with\nfound (name, state, finding, advice) as (\n    select\n        'locks', 'bad',\n        \
        format('the thing %s is ''so'' '\n   'broken that %s', a, b), 'do this'\n    from x\n)\nselect 1";
    let found = ("locks".to_owned(), "the thing %s is 'so' broken that %s".to_owned());
    assert_eq!(findings_in_sql("x", sql), [found]);
    let code = "bad(\n \"locks\",\n format!(\n \"{name} is \\\n    broken: {why}\"\n), \"advice\")";
    let found = ("locks".to_owned(), "{name} is broken: {why}".to_owned());
    assert_eq!(findings_in_rust(code), [found]);
    assert_eq!(quote_of("the thing %s is broken", "`is` or `the thing … is`, `a thing … is`"), Some("the thing … is"));
    assert_eq!(quote_of("the thing %s is broken", "`the thing … was`"), None);
}
