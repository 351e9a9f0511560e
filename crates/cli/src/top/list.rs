//! A list: its rows as the user sorts and filters them, and the selected row.

use std::cmp::Ordering;

use super::columns::{columns, is_warning};
use super::page::{Place, Subject};
use super::row::{Cell, Row};

/// A row of a list, as it is shown.
#[derive(Debug, Clone)]
pub struct TableRow {
    pub subject: Subject,
    /// One cell per column.
    pub cells: Vec<Cell>,
    /// True if the row is shown in the colour of a warning.
    pub is_warning: bool,
    pub row: Row,
}

#[derive(Debug)]
pub struct List {
    pub place: Place,
    /// The rows in the order of the database's answer; `None` before the first answer.
    rows: Option<Vec<TableRow>>,
    /// The indexes of the rows that are shown, in the order in which they are shown.
    shown: Vec<usize>,
    /// The reason why the database refused the last read of this list.
    pub refused: Option<String>,
    /// The index of the column that sorts the rows; `None`: the order of the database.
    sort: Option<usize>,
    is_reversed: bool,
    filter: String,
    /// The selected row: found by its subject, or by its index if that row is gone.
    marked: Option<Subject>,
    place_of_mark: usize,
    /// The index of the first row on the screen.
    offset: usize,
}

impl List {
    pub fn new(place: Place) -> List {
        List {
            place,
            rows: None,
            shown: Vec::new(),
            refused: None,
            sort: None,
            is_reversed: false,
            filter: String::new(),
            marked: None,
            place_of_mark: 0,
            offset: 0,
        }
    }

    /// Takes in the database's answer.
    pub fn update(&mut self, answer: Result<Vec<Row>, String>) {
        match answer {
            Ok(rows) => {
                let columns = columns(&self.place);
                let table_row = |row: Row| TableRow {
                    subject: Subject::of(&self.place, &row),
                    cells: columns.iter().map(|column| (column.cell)(&row)).collect(),
                    is_warning: is_warning(&self.place, &row),
                    row,
                };
                self.rows = Some(rows.into_iter().map(table_row).collect());
                self.refused = None;
                self.arrange();
            }
            Err(why) => self.refused = Some(why),
        }
    }

    /// Filters and sorts the rows.
    fn arrange(&mut self) {
        let rows = self.rows.as_deref().unwrap_or_default();
        let wanted = self.filter.to_lowercase();
        let matches = |row: &TableRow| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&wanted));
        self.shown = (0..rows.len()).filter(|index| wanted.is_empty() || matches(&rows[*index])).collect();
        let Some(column) = self.sort else {
            if self.is_reversed {
                self.shown.reverse();
            }
            return;
        };
        let descends = self.descends();
        self.shown.sort_by(|one, other| compare(&rows[*one].cells[column], &rows[*other].cells[column], descends));
    }

    /// Returns true if the largest value comes first. By default, figures descend and texts ascend.
    fn descends(&self) -> bool {
        self.sort.is_some_and(|column| columns(&self.place)[column].is_figure) != self.is_reversed
    }

    /// Sorts by the next column. After the last column, the rows have the order of the database again.
    pub fn sort_by_next(&mut self) {
        let next = self.sort.map_or(0, |column| column + 1);
        self.sort = (next < columns(&self.place).len()).then_some(next);
        self.is_reversed = false;
        self.arrange();
    }

    pub fn reverse(&mut self) {
        self.is_reversed = !self.is_reversed;
        self.arrange();
    }

    /// Returns the index of the column that sorts the rows, and true if the largest value comes first.
    pub fn sorted(&self) -> (Option<usize>, bool) {
        (self.sort, self.descends())
    }

    pub fn filter(&self) -> &str {
        &self.filter
    }

    pub fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.arrange();
    }

    pub fn is_answered(&self) -> bool {
        self.rows.is_some()
    }

    /// Returns the number of rows that were read, shown or not.
    pub fn read(&self) -> usize {
        self.rows.as_ref().map_or(0, Vec::len)
    }

    /// Returns the number of rows that are shown.
    pub fn len(&self) -> usize {
        self.shown.len()
    }

    /// Returns the rows that are shown, in their order.
    pub fn shown(&self) -> impl Iterator<Item = &TableRow> {
        let rows = self.rows.as_deref().unwrap_or_default();
        self.shown.iter().map(move |index| &rows[*index])
    }

    /// Returns all rows, also the rows that the filter hides.
    pub fn all(&self) -> &[TableRow] {
        self.rows.as_deref().unwrap_or_default()
    }

    /// Returns the row of a subject, even if the filter hides it.
    pub fn find(&self, subject: &Subject) -> Option<&TableRow> {
        self.all().iter().find(|row| row.subject.is_same(subject))
    }

    /// Returns the index of the selected row among the shown rows; `None` if no row is shown.
    pub fn mark(&self) -> Option<usize> {
        let found = self.marked.as_ref().and_then(|marked| self.shown().position(|row| row.subject.is_same(marked)));
        let last = self.shown.len().checked_sub(1)?;
        Some(found.unwrap_or(self.place_of_mark).min(last))
    }

    pub fn marked(&self) -> Option<&TableRow> {
        self.shown().nth(self.mark()?)
    }

    /// Selects a row by its index. `height` is the number of rows on the screen.
    pub fn select(&mut self, index: usize, height: usize) {
        self.place_of_mark = index.min(self.shown.len().saturating_sub(1));
        let marked = self.shown().nth(self.place_of_mark).map(|row| row.subject.clone());
        self.marked = marked;
        self.offset = self.first_row(height);
    }

    /// Returns the index of the first row on a screen of this height, on which the selected row is visible.
    pub fn first_row(&self, height: usize) -> usize {
        let mark = self.mark().unwrap_or_default();
        let lowest = (mark + 1).saturating_sub(height.max(1));
        let without_blanks = self.shown.len().saturating_sub(height);
        self.offset.clamp(lowest, mark).min(without_blanks.max(lowest))
    }
}

/// Compares two cells of a column. Missing values come last in both directions.
fn compare(one: &Cell, other: &Cell, descends: bool) -> Ordering {
    let order = match (one.is_missing, other.is_missing) {
        (false, false) => match (one.figure, other.figure) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            _ => one.text.to_lowercase().cmp(&other.text.to_lowercase()),
        },
        (missing, other_missing) => return missing.cmp(&other_missing),
    };
    if descends { order.reverse() } else { order }
}
