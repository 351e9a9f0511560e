//! Text from jobs, which anybody may have written.

use std::fmt::Write;

/// Returns the text with each control character as an escape, so that a page shows what is there. The markup's own
/// characters are escaped by maud.
///
/// Characters that change the direction of the text around them count as control characters, and so do those without
/// width: they could make one text look like another. Line breaks and tabs stay.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            _ if is_hidden(c) => {
                // Writing to a string cannot fail.
                let _ = write!(shown, "\\u{{{:x}}}", c as u32);
            }
            _ => shown.push(c),
        }
    }
    shown
}

/// Returns the beginning of the text as [`shown`] does, so that it takes at most `most` bytes of a page; and true if
/// this is not all. This bounds the size of a page, whatever a job's text is.
pub fn within(text: &str, most: usize) -> (String, bool) {
    let mut left = most;
    for (place, c) in text.char_indices() {
        let bytes = match c {
            '"' => "&quot;".len(),
            '<' | '>' => "&lt;".len(),
            '&' => "&amp;".len(),
            '\n' | '\t' => 1,
            _ if is_hidden(c) => "\\u{e007f}".len(),
            _ => c.len_utf8(),
        };
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return (shown(&text[..place]), true),
        }
    }
    (shown(text), false)
}

/// Returns the text as one line.
pub fn line(text: &str) -> String {
    shown(text).replace(['\n', '\t'], " ")
}

/// Returns the beginning of the text as one line that takes at most `most` bytes of a page, with `…` for the rest.
pub fn brief(text: &str, most: usize) -> String {
    let (begin, is_cut) = within(text, most);
    format!("{}{}", begin.replace(['\n', '\t'], " "), if is_cut { "…" } else { "" })
}

/// Returns at most `most` characters of the text, with `…` in place of the rest.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Writes text as one value of a query.
///
/// Names of queues and schedules may have any characters, so they stand in queries: browsers and proxies change paths
/// with dots and slashes.
pub fn in_query(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_shown() {
        assert_eq!(shown("a\u{1b}[31m\u{202e}b\u{0}\nc"), "a\\u{1b}[31m\\u{202e}b\\u{0}\nc");
        assert_eq!(line("two\nlines\tand é 日本"), "two lines and é 日本");
        let text = "\"<\u{202e}é\n&";
        for most in 0..40 {
            let (begin, is_cut) = within(text, most);
            let page = maud::html! { (begin) }.into_string();
            assert!(page.len() <= most && shown(text).starts_with(&begin), "{most} {page}");
            assert_eq!(is_cut, begin != shown(text), "{most}");
        }
        assert_eq!([brief("a\nb", 3), brief("a<b", 4), brief("日本", 5)], ["a b", "a…", "日…"]);
        assert_eq!([cut("abc", 3), cut("abcd", 3), cut("日本語", 2)], ["abc", "abc…", "日本…"]);
    }
}
