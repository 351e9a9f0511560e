use super::*;

fn queue(name: &str) -> Queue {
    Queue { queue: name.into(), ..Queue::default() }
}

fn model(pane: Pane) -> Model {
    let mut model = Model::new(pane);
    model.hear(Ok(Overview {
        queues: vec![queue("a"), Queue { paused: true, ..queue("b") }],
        running: vec![Running { id: 7, ..Running::default() }],
        failing: vec![Failing { id: 8, ..Failing::default() }],
        dead: vec![Dead { last_id: Some(9), reason: "lost".into(), ..Dead::default() }],
        ..Overview::default()
    }));
    model
}

fn press(model: &mut Model, keys: &str) -> Reaction {
    let codes = keys.chars().map(KeyCode::Char);
    codes.map(|code| model.press(KeyEvent::new(code, KeyModifiers::NONE))).last().unwrap()
}

#[test]
fn nothing_is_done_without_a_yes() {
    for (pane, letters) in [(Pane::Queues, "p"), (Pane::Running, "c"), (Pane::Failing, "rc"), (Pane::Dead, "rR")] {
        for letter in letters.chars() {
            let mut model = model(pane);
            assert_eq!(press(&mut model, &letter.to_string()), Reaction::Nothing);
            let asked = model.asking.clone().unwrap();
            assert_eq!(press(&mut model, "n"), Reaction::Nothing);
            assert_eq!(model.asking, None);
            assert_eq!(press(&mut model, &format!("{letter}y")), Reaction::Act(asked));
        }
    }
}

#[test]
fn a_paused_queue_is_resumed_and_the_other_paused() {
    assert_eq!(press(&mut model(Pane::Queues), "py"), Reaction::Act(Action::Pause("a".into())));
    assert_eq!(press(&mut model(Pane::Queues), "jpy"), Reaction::Act(Action::Resume("b".into())));
}

#[test]
fn a_letter_that_means_nothing_here_asks_nothing() {
    for (pane, letters) in [(Pane::Queues, "rcRxy"), (Pane::Workers, "prcR"), (Pane::Running, "pR"), (Pane::Dead, "pc")]
    {
        let mut model = model(pane);
        press(&mut model, letters);
        assert_eq!(model.asking, None, "{pane:?}");
    }
    let mut empty = Model::new(Pane::Queues);
    assert_eq!(press(&mut empty, "pyjkGgrR"), Reaction::Nothing);
}

#[test]
fn the_mark_stays_on_its_row_when_others_come_and_go() {
    let mut model = model(Pane::Queues);
    press(&mut model, "j");
    let heard =
        |names: &[&str]| Overview { queues: names.iter().map(|name| queue(name)).collect(), ..Overview::default() };
    model.hear(Ok(heard(&["0", "1", "a", "b"])));
    assert_eq!(model.marked(), Some(3));
    model.hear(Ok(heard(&["0"])));
    assert_eq!(model.marked(), Some(0), "it is gone");
    model.hear(Ok(heard(&[])));
    assert_eq!(model.marked(), None);
}

#[test]
fn what_is_asked_about_stays_when_rows_move() {
    let mut model = model(Pane::Running);
    press(&mut model, "c");
    model.hear(Ok(Overview { running: vec![Running { id: 1, ..Running::default() }], ..Overview::default() }));
    assert_eq!(press(&mut model, "y"), Reaction::Act(Action::Cancel(7)));
}

#[test]
fn panes_go_round_and_help_goes_away_by_any_key() {
    let mut model = model(Pane::Queues);
    press(&mut model, "h");
    assert_eq!(model.pane, Pane::Dead);
    press(&mut model, "l3");
    assert_eq!(model.pane, Pane::Running);
    press(&mut model, "?");
    assert!(model.helping);
    assert_eq!(press(&mut model, "c"), Reaction::Nothing);
    assert_eq!((model.helping, model.asking.is_none()), (false, true));
    assert_eq!(press(&mut model, "q"), Reaction::Quit);
}
