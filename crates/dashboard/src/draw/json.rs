//! JSON from jobs, laid out for people. The text is never parsed, so JSON of any depth and any numbers can be shown.

/// The deepest level that is indented further.
const DEEPEST: usize = 24;

/// Lays JSON out with one member or element a line. At most `most` bytes of the JSON are laid out; the second value is
/// true if there is more.
pub fn laid_out(json: &str, most: usize) -> (String, bool) {
    let mut out = String::with_capacity(json.len().min(most) * 2);
    let (mut depth, mut is_string, mut is_escaped) = (0_usize, false, false);
    let mut chars = json.char_indices().peekable();
    while let Some((place, c)) = chars.next() {
        if place >= most {
            return (out, true);
        }
        if is_string {
            out.push(c);
            is_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
            continue;
        }
        match c {
            '"' => {
                is_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|(_, next)| next.is_ascii_whitespace()).is_some() {}
                match chars.next_if(|(_, next)| matches!(next, '}' | ']')) {
                    Some((_, close)) => out.push(close),
                    None => {
                        depth += 1;
                        begin_line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                begin_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                begin_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    (out, false)
}

fn begin_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth.min(DEEPEST)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_a_member_a_line() {
        let json = r#"{"a":[1, 2.50,{}],"b {[,":"x\"}\\","c":[ ]}"#;
        let text = "{\n  \"a\": [\n    1,\n    2.50,\n    {}\n  ],\n  \"b {[,\": \"x\\\"}\\\\\",\n  \"c\": []\n}";
        assert_eq!(laid_out(json, 1000), (text.to_owned(), false));
        assert_eq!(laid_out("7", 10), ("7".to_owned(), false));
    }

    #[test]
    fn deep_and_long_json_is_laid_out_up_to_a_bound() {
        let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
        let (text, is_cut) = laid_out(&deep, 1 << 20);
        assert!(!is_cut && text.lines().all(|line| line.len() <= 2 * DEEPEST + 2));
        let (text, is_cut) = laid_out(&format!("[{}0]", "0,".repeat(1 << 20)), 100);
        assert!(is_cut && text.len() < 400);
    }
}
