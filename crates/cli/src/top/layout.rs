//! Fitting texts and columns into the width of a terminal.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The blanks between two columns or two parts of a line.
const GAP: usize = 1;
/// A column of text gets this width before other columns of text get more.
const FAIR_TEXT: usize = 24;
/// A column of figures has at least this width, so that columns do not move when figures grow.
const NARROWEST_FIGURE: usize = 5;

/// A column as the layout sees it.
#[derive(Debug)]
pub struct Wish {
    pub rank: u8,
    pub is_figure: bool,
    /// The width of the longest cell.
    pub longest_cell: usize,
    pub title: usize,
}

impl Wish {
    /// The width at which no cell is cut.
    fn full(&self) -> usize {
        let floor = if self.is_figure && self.longest_cell > 0 { NARROWEST_FIGURE } else { 0 };
        self.longest_cell.max(self.title).max(floor)
    }

    /// The smallest width at which the column is shown in a terminal of this width. A figure is never cut. In a wide
    /// terminal, a text is shown rather than a column of a higher rank.
    fn least(&self, terminal: usize) -> usize {
        let narrowest = (terminal / 5).clamp(10, FAIR_TEXT).max(self.title);
        if self.is_figure { self.full() } else { self.full().min(narrowest) }
    }
}

/// Chooses the columns that fit into a width, and their widths: the index and the width of each column, in the order of
/// the columns.
///
/// The columns of the lowest ranks are shown. Columns of text share the rest. The column of rank 0 is always shown,
/// even if the terminal is narrower than the column.
pub fn choose(wishes: &[Wish], width: usize) -> Vec<(usize, usize)> {
    // A column without a title and without cells needs no room.
    let mut by_rank: Vec<usize> = (0..wishes.len()).filter(|index| wishes[*index].full() > 0).collect();
    by_rank.sort_by_key(|index| wishes[*index].rank);
    let (mut chosen, mut left): (Vec<(usize, usize)>, usize) = (Vec::new(), width);
    for index in by_rank {
        let (gap, least) = (if chosen.is_empty() { 0 } else { GAP }, wishes[index].least(width));
        if gap + least > left && !chosen.is_empty() {
            break;
        }
        let given = least.min(left - gap);
        left -= gap + given;
        chosen.push((index, given));
    }
    for most in [FAIR_TEXT, usize::MAX] {
        for (index, given) in &mut chosen {
            let more = wishes[*index].full().min(most).saturating_sub(*given).min(left);
            *given += more;
            left -= more;
        }
    }
    chosen.sort_unstable();
    chosen
}

/// Returns the text in exactly this width, cut off on the right with `…`, or filled with blanks on the left or right.
pub fn fit(text: &str, width: usize, to_the_right: bool) -> String {
    let cut = cut(text, width);
    let blanks = " ".repeat(width.saturating_sub(cut.width()));
    if to_the_right { blanks + &cut } else { cut + &blanks }
}

/// Returns the text, cut off on the right with `…` if it is wider than this.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut cut = begin(text, width.saturating_sub(1)).to_owned();
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Returns the beginning of a text that is at most this wide.
fn begin(text: &str, width: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > width
    });
    &text[..end.map_or(text.len(), |(place, _)| place)]
}

/// Breaks a text into lines of at most this width. Further lines begin with `indent` blanks.
pub fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let indent = if indent + 10 > width { 0 } else { indent };
    let mut lines = Vec::new();
    let mut rest = text;
    loop {
        let blanks = if lines.is_empty() { 0 } else { indent };
        let mut piece = begin(rest, width.saturating_sub(blanks).max(1));
        if piece.is_empty() {
            // One character is wider than the terminal.
            piece = &rest[..rest.chars().next().map_or(0, char::len_utf8)];
        }
        // A line ends after a blank, unless the line would be much shorter than the terminal.
        if piece.len() < rest.len()
            && let Some(blank) = piece.rfind(' ').filter(|blank| *blank > piece.len() / 2)
        {
            piece = &piece[..=blank];
        }
        lines.push(format!("{:blanks$}{piece}", ""));
        rest = &rest[piece.len()..];
        if rest.is_empty() {
            return lines;
        }
    }
}

/// Joins as many parts as fit into a width, with two blanks between them. The parts of the lowest ranks are kept, in
/// the order in which they are given.
pub fn join(parts: &[(u8, String)], width: usize) -> String {
    let mut by_rank: Vec<usize> = (0..parts.len()).filter(|index| !parts[*index].1.is_empty()).collect();
    by_rank.sort_by_key(|index| parts[*index].0);
    let joined = |kept: &[usize]| {
        let mut kept = kept.to_vec();
        kept.sort_unstable();
        kept.iter().map(|index| parts[*index].1.as_str()).collect::<Vec<_>>().join("  ")
    };
    let fitting = (1..=by_rank.len()).rev().map(|count| joined(&by_rank[..count])).find(|line| line.width() <= width);
    fitting.unwrap_or_else(|| by_rank.first().map_or(String::new(), |first| cut(&parts[*first].1, width)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_cut_on_its_right_by_its_width() {
        assert_eq!((cut("queue", 5), cut("queues", 5)), ("queue".into(), "queu…".into()));
        assert_eq!(fit("漢字かな", 6, false), "漢字… ", "a wide character is never halved");
        assert_eq!((fit("12", 4, true), fit("漢", 1, true)), ("  12".into(), "…".into()));
    }

    #[test]
    fn a_long_line_goes_on_below_itself() {
        assert_eq!(wrap("abcdefghijklmnopqrst", 14, 2), ["abcdefghijklmn", "  opqrst"]);
        assert_eq!(wrap("attempt 20, failed", 14, 2), ["attempt 20, ", "  failed"]);
        assert_eq!((wrap("", 5, 2), wrap("漢字", 1, 0)), (vec![String::new()], vec!["漢".into(), "字".to_owned()]));
    }

    #[test]
    fn the_parts_of_the_lowest_ranks_are_kept() {
        let parts = [(2, "two".to_owned()), (1, "one".to_owned()), (3, "three".to_owned()), (0, String::new())];
        assert_eq!([20, 12, 4, 2].map(|width| join(&parts, width)), ["two  one  three", "two  one", "one", "o…"]);
    }

    fn wishes() -> impl Strategy<Value = Vec<Wish>> {
        let wish = (any::<u8>(), any::<bool>(), 0usize..60, 0usize..10)
            .prop_map(|(rank, is_figure, longest_cell, title)| Wish { rank, is_figure, longest_cell, title });
        proptest::collection::vec(wish, 0..14)
    }

    proptest! {
        #[test]
        fn columns_fit_and_no_figure_is_cut(wishes in wishes(), width in 0usize..250) {
            let chosen = choose(&wishes, width);
            let used: usize = chosen.iter().map(|(_, given)| given + GAP).sum();
            prop_assert!(used <= width + GAP);
            for (index, given) in &chosen {
                let is_whole = *given >= wishes[*index].least(width);
                prop_assert!(is_whole || chosen.len() == 1, "only the first column may be cut");
            }
        }

        #[test]
        fn a_fitted_text_has_its_width(text in "[a-z漢字é ]{0,40}", width in 0usize..50) {
            prop_assert_eq!(fit(&text, width, false).width(), width);
            let lines = wrap(&text, width.max(2), 0);
            prop_assert!(lines.iter().all(|line| line.width() <= width.max(2)));
            prop_assert_eq!(lines.concat(), text, "no character is lost");
        }
    }
}
