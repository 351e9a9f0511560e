//! What a pressed key changes in the model.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Model, Opened, Reaction, Shown};
use super::page::Page;

impl Model {
    pub fn press(&mut self, key: KeyEvent) -> Reaction {
        if key.kind == KeyEventKind::Release {
            return Reaction::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Reaction::Quit } else { Reaction::Nothing };
        }
        if let Some(action) = self.asking.take() {
            // Any key but `y` means no.
            return if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                Reaction::Act(action)
            } else {
                Reaction::Nothing
            };
        }
        self.message = None;
        if self.is_typing {
            self.type_filter(key.code);
            return Reaction::Nothing;
        }
        if self.move_by(key.code) {
            return Reaction::Nothing;
        }
        if self.help.take().is_some() {
            return if key.code == KeyCode::Char('q') { Reaction::Quit } else { Reaction::Nothing };
        }
        self.command(key.code)
    }

    /// Changes the filter while the user types it.
    fn type_filter(&mut self, code: KeyCode) {
        let mut filter = self.list().filter().to_owned();
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                filter.clear();
            }
            KeyCode::Backspace => {
                filter.pop();
            }
            KeyCode::Char(letter) => filter.push(letter),
            // The arrows move the selection while the user types.
            KeyCode::Up | KeyCode::Down | KeyCode::PageUp | KeyCode::PageDown => {
                self.move_by(code);
                return;
            }
            _ => return,
        }
        self.list_mut().set_filter(filter);
    }

    /// Moves the selection, or scrolls the text. Returns false if the key does not move.
    fn move_by(&mut self, code: KeyCode) -> bool {
        let height = self.body_height();
        let from = match (self.help, self.shown()) {
            (Some(scroll), _) => scroll,
            (None, Shown::Detail(detail)) => detail.scroll,
            (None, Shown::List(list)) => list.mark().unwrap_or_default(),
        };
        let to = match code {
            KeyCode::Down | KeyCode::Char('j') => from.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => from.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => from.saturating_add(height),
            KeyCode::PageUp => from.saturating_sub(height),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            _ => return false,
        };
        let last = self.last_scroll();
        if self.help.is_some() {
            self.help = Some(to.min(last));
        } else if let Some(Opened::Detail(detail)) = self.opened.last_mut() {
            detail.scroll = to.min(last);
        } else {
            self.list_mut().select(to, height);
        }
        true
    }

    fn command(&mut self, code: KeyCode) -> Reaction {
        let is_list = matches!(self.shown(), Shown::List(_));
        match code {
            KeyCode::Char('q') => return Reaction::Quit,
            KeyCode::Char('?') => self.help = Some(0),
            KeyCode::Enter => {
                self.hold_mark();
                self.open();
            }
            KeyCode::Esc | KeyCode::Backspace => self.go_back(),
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.go_to(self.page.step(1)),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => self.go_to(self.page.step(Page::ALL.len() - 1)),
            KeyCode::Char('s') if is_list => self.list_mut().sort_by_next(),
            KeyCode::Char('S') if is_list => self.list_mut().reverse(),
            KeyCode::Char('/') if is_list => self.is_typing = true,
            KeyCode::Char(letter) => match Page::of_digit(letter) {
                Some(page) => self.go_to(page),
                None => self.ask(letter),
            },
            _ => {}
        }
        Reaction::Nothing
    }

    /// Clears the filter, or else closes what the user opened last.
    fn go_back(&mut self) {
        if matches!(self.shown(), Shown::List(list) if !list.filter().is_empty()) {
            self.list_mut().set_filter(String::new());
        } else {
            self.opened.pop();
        }
    }

    fn ask(&mut self, letter: char) {
        let found = self.letters().into_iter().find(|(known, ..)| *known == letter);
        self.asking = found.map(|(_, _, action)| action);
        if self.asking.is_some() {
            self.hold_mark();
        }
    }

    /// Selects the row of an action, so that the selection follows this row when rows move.
    fn hold_mark(&mut self) {
        let height = self.body_height();
        if let Shown::List(list) = self.shown() {
            let mark = list.mark().unwrap_or_default();
            self.list_mut().select(mark, height);
        }
    }
}
