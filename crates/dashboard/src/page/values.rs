//! A JSON value on a page.

use maud::{Markup, html};

use crate::draw::{json, number, parts, text};
use crate::encrypted;
use crate::redact::Shown;

/// Draws a value with its title, in at most `most` bytes of the page. If this is not all, links to the whole value, if
/// there is a page of it.
pub fn block(title: &str, shown: &Shown, most: usize, whole: Option<String>) -> Markup {
    let (laid_out, has_more) = json::laid_out(&shown.text, most);
    let (laid_out, is_cut) = text::within(&laid_out, most);
    let is_cut = is_cut || has_more;
    let key = encrypted::key(&shown.text);
    html! {
        h2 {
            (title)
            @if shown.is_redacted { (parts::badge("redacted", "")) }
            @if key.is_some() { (parts::badge("encrypted", "")) }
        }
        @if let Some(key) = key {
            p.hint { "Encrypted with the key " (text::line(&key)) ". The dashboard has no keys: this is as stored." }
        }
        pre tabindex="0" aria-label=(title) { (laid_out) @if is_cut { "…" } }
        @if let Some(whole) = whole.filter(|_| is_cut) {
            p {
                a href=(whole) { "The whole " (title.to_lowercase()) }
                ", " (number::count(shown.text.len() as u64)) " bytes"
            }
        }
    }
}
