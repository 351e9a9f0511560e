//! Finding well-formed JSON that Postgres refuses as `jsonb`.

/// The deepest nesting that is allowed. Postgres fails once its stack is used up, by default after several thousand
/// levels.
const DEEPEST: usize = 1000;
/// The most digits of a `numeric` before its decimal point.
const DIGITS: i64 = 131_072;
/// The most digits of a `numeric` behind its decimal point.
const DECIMALS: i64 = 16_383;

/// Returns the reason why Postgres would refuse this well-formed JSON text; `None` if Postgres would store the text.
pub(super) fn refusal(json: &[u8]) -> Option<&'static str> {
    let (mut rest, mut depth) = (json, 0usize);
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'"' => match string(rest) {
                Ok(behind) => rest = behind,
                Err(why) => return Some(why),
            },
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'0'..=b'9' => {
                let is_part = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
                let length = after.iter().take_while(|byte| is_part(byte)).count();
                if !is_numeric(first, &after[..length]) {
                    return Some("holds a number of more than 131,072 digits");
                }
                rest = &after[length..];
            }
            _ => {}
        }
        if depth > DEEPEST {
            return Some("is nested more than 1,000 levels deep");
        }
    }
    None
}

/// Skips a string and returns the text behind its closing quote.
fn string(json: &[u8]) -> Result<&[u8], &'static str> {
    let mut rest = json;
    loop {
        let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else { return Ok(&[]) };
        if rest[at] == b'"' {
            return Ok(&rest[at + 1..]);
        }
        let escape = &rest[at..];
        let length = match unit(escape) {
            Some(0) => return Err("holds a NUL character (\\u0000)"),
            Some(0xd800..=0xdbff) if matches!(escape.get(6..).and_then(unit), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => return Err("holds half of a surrogate pair"),
            Some(_) => 6,
            None => 2,
        };
        rest = escape.get(length..).unwrap_or_default();
    }
}

/// Reads the UTF-16 unit of the escape `\uXXXX` at the beginning of the text.
fn unit(json: &[u8]) -> Option<u16> {
    let digits = json.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// True if Postgres' `numeric` can hold the number. `first` is the number's first byte, and `behind` is the text behind
/// it.
fn is_numeric(first: u8, behind: &[u8]) -> bool {
    let (mut digits, mut decimals, mut exponent, mut negative) = (i64::from(first.is_ascii_digit()), 0i64, 0i64, false);
    let (mut has_point, mut has_exponent) = (false, false);
    for byte in behind {
        match byte {
            b'.' => has_point = true,
            b'e' | b'E' => has_exponent = true,
            b'-' => negative = true,
            b'0'..=b'9' if has_exponent => {
                exponent = exponent.saturating_mul(10).saturating_add(i64::from(byte - b'0'));
            }
            b'0'..=b'9' if has_point => decimals += 1,
            b'0'..=b'9' => digits += 1,
            _ => {}
        }
    }
    let exponent = if negative { -exponent } else { exponent };
    digits.saturating_add(exponent.max(0)) <= DIGITS && decimals.saturating_sub(exponent) <= DECIMALS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_postgres_stores_is_accepted() {
        let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
        for json in [
            r#"{"a": 1e400, "b": -1.5E-400, "c": 12345678901234567890123}"#,
            r#"["\\u0000", "\ud83d\ude00", "\u00e9\n\"", "]]]"]"#,
            "1e131071",
            "1e-16383",
            &deep,
        ] {
            assert_eq!(refusal(json.as_bytes()), None, "{json}");
        }
    }

    #[test]
    fn json_that_postgres_cannot_store_is_refused() {
        let (deep, long) = ("[".repeat(1001), "1".repeat(131_073));
        for json in [
            r#""\u0000""#,
            r#""\\\u0000""#,
            r#""\ud83d""#,
            r#""\ud83d\n\ude00""#,
            r#""\ude00""#,
            "1e131072",
            "[-1e-16384]",
            "1e99999999999999999999",
            &long,
            &deep,
        ] {
            assert!(refusal(json.as_bytes()).is_some(), "{json}");
        }
    }
}
