use super::*;

fn queue(name: &str) -> QueueRow {
    QueueRow { queue: name.into(), ..QueueRow::default() }
}

fn model(pane: Pane) -> Model {
    let mut model = Model::new(pane);
    model.update(Ok(Overview {
        queues: vec![queue("a"), QueueRow { paused: true, ..queue("b") }],
        running: vec![RunningRow { id: 7, ..RunningRow::default() }],
        failing: vec![FailingRow { id: 8, ..FailingRow::default() }],
        dead: vec![DeadRow { last_id: Some(9), reason: "lost".into(), ..DeadRow::default() }],
        ..Overview::default()
    }));
    model
}

fn press(model: &mut Model, keys: &str) -> Reaction {
    let codes = keys.chars().map(KeyCode::Char);
    codes.map(|code| model.press(KeyEvent::new(code, KeyModifiers::NONE))).last().unwrap()
}

#[test]
fn no_action_is_taken_without_a_yes() {
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
    assert_eq!(press(&mut model(Pane::Queues), "py"), Reaction::Act(DatabaseAction::Pause("a".into())));
    assert_eq!(press(&mut model(Pane::Queues), "jpy"), Reaction::Act(DatabaseAction::Resume("b".into())));
}

#[test]
fn a_letter_without_a_meaning_in_its_pane_asks_nothing() {
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
    let with =
        |names: &[&str]| Overview { queues: names.iter().map(|name| queue(name)).collect(), ..Overview::default() };
    model.update(Ok(with(&["0", "1", "a", "b"])));
    assert_eq!(model.marked(), Some(3));
    model.update(Ok(with(&["0"])));
    assert_eq!(model.marked(), Some(0), "the row of the action is gone");
    model.update(Ok(with(&[])));
    assert_eq!(model.marked(), None);
}

#[test]
fn a_question_keeps_its_job_when_rows_move() {
    let mut model = model(Pane::Running);
    press(&mut model, "c");
    model.update(Ok(Overview { running: vec![RunningRow { id: 1, ..RunningRow::default() }], ..Overview::default() }));
    assert_eq!(press(&mut model, "y"), Reaction::Act(DatabaseAction::Cancel(7)));
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
