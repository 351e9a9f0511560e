use ratatui::crossterm::event::KeyCode;
use serde_json::json;

use super::super::model::Update;
use super::super::model::tests::{answer, filled, key, press, rows};
use super::super::row::Row;
use super::*;

fn text(model: &Model) -> Vec<String> {
    lines(model, Look { colours: true }).iter().map(|line| line.to_string().trim_end().to_owned()).collect()
}

fn at(width: usize, height: usize, page: Page) -> Model {
    let mut model = filled();
    model.size = (width, height);
    model.go_to(page);
    model
}

/// Returns the words of the header of the list.
fn titles(model: &Model) -> Vec<String> {
    text(model)[4].split("  ").map(|title| title.trim().to_owned()).filter(|title| !title.is_empty()).collect()
}

#[test]
fn queues_fit_a_small_terminal() {
    let shown = text(&at(80, 24, Page::Queues));
    assert!(shown[0].starts_with("reveille top") && shown[0].ends_with("06:07:08"), "{shown:#?}");
    assert!(shown[1].starts_with("~1.2M ready") && shown[1].ends_with("3 dead"), "{shown:#?}");
    assert_eq!(shown[2], "1 queues 2 running 3 waiting 4 failing 5 dead 6 workers 7 schedules 8 limits");
    assert_eq!(shown[3], "2 rows");
    assert!(shown[5].starts_with("mail ") && shown[5].contains("~1.2M") && shown[5].contains("1m15s"), "{shown:#?}");
    assert!(shown[6].contains("paused") && shown[6].contains("12ms"), "{shown:#?}");
    assert_eq!(shown[23], "p pause  Enter open  / filter  s sort  Tab next page  ? help  q quit");
    assert_eq!(shown.len(), 24);
}

#[test]
fn a_narrow_terminal_drops_the_least_important_columns_and_cuts_no_figure() {
    let words = |width| titles(&at(width, 24, Page::Queues)).join(" ");
    assert_eq!(words(200), "queue ready delay run dead oldest done/m fail/m wait wait max took took max");
    assert_eq!(words(80), "queue ready delay run dead oldest done/m fail/m wait took");
    assert_eq!(words(40), "queue ready run dead oldest");
    assert_eq!(words(20), "queue ready");
    for width in [20, 40, 80, 200] {
        let shown = text(&at(width, 24, Page::Queues));
        assert!(shown[5].contains(" ~1.2M"), "{width}: {shown:#?}");
    }
    let mut model = at(40, 12, Page::Waiting);
    let long = json!({"id": 1_234_567_890_123_456_789_i64, "queue": "mail", "kind": "k".repeat(60),
        "due_seconds": -90.0, "ready": true});
    answer(&mut model, &[long]);
    let shown = text(&model);
    assert!(shown[5].starts_with("1234567890123456789 kkkk") && shown[5].ends_with("… 1m30s ago"), "{shown:#?}");
}

#[test]
fn each_page_shows_its_rows() {
    for (page, parts) in [
        (Page::Running, &["report", "1m15s", "(gone)"][..]),
        (Page::Waiting, &["welcome", "1m30s ago", "normal", "ready", "0/20"]),
        (Page::Failing, &["2/20", "due", "no luck"]),
        (Page::Dead, &["card", "3", "lost"]),
        (Page::Workers, &["web-1", "42", "16", "working", "mail, bulk"]),
        (Page::Schedules, &["nightly", "0 3 * * *", "in 1h01m", "report"]),
        (Page::Limits, &["mail", "2/5", "1/1", "100 in 1.0s"]),
    ] {
        let shown = text(&at(80, 24, page));
        assert!(parts.iter().all(|part| shown[5].contains(part)), "{shown:#?}");
        let narrow = text(&at(40, 12, page));
        assert!(parts[..2].iter().all(|part| narrow[5].contains(part)), "{narrow:#?}");
    }
}

#[test]
fn any_size_is_drawn_and_nothing_is_wider_than_the_terminal() {
    let odd = "\u{1b}[2J 漢字漢字 e\u{301} \u{202e}\t👩‍👩‍👧";
    for (width, height) in [(0, 0), (1, 1), (2, 9), (20, 3), (20, 10), (40, 12), (80, 24), (200, 50), (500, 5)] {
        for page in Page::ALL {
            let mut model = at(width, height, page);
            if page == Page::Waiting {
                answer(&mut model, &[json!({"id": 1, "queue": odd, "kind": odd, "due_seconds": 1e9})]);
            }
            for keys in ["", "j", "s", "?", "c", "n/x"] {
                if !keys.is_empty() {
                    press(&mut model, keys);
                }
                fits(&model);
            }
            key(&mut model, KeyCode::Esc);
            key(&mut model, KeyCode::Enter);
            let job = Row::parse(&json!({"id": 1, "kind": odd, "payload": {"a": odd}}).to_string());
            model.update(Update::Job(1, Ok(job)));
            fits(&model);
            model.update(Update::Lost(odd.into()));
            fits(&model);
        }
    }
}

fn fits(model: &Model) {
    let (width, height) = model.size;
    let lines = lines(model, Look { colours: false });
    assert_eq!(lines.len(), height.max(1));
    for line in lines {
        assert!(line.width() <= width, "{width}: {line}");
        assert!(!line.to_string().contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
}

#[test]
fn a_narrow_terminal_names_the_current_page() {
    assert_eq!(text(&at(40, 12, Page::Schedules))[2], "1 2 3 4 5 6 7 schedules 8");
    assert_eq!(text(&at(20, 12, Page::Schedules))[2], "7 schedules");
}

#[test]
fn a_list_says_how_much_of_it_is_read() {
    let mut model = at(80, 24, Page::Waiting);
    let waiting = |id| json!({"id": id, "kind": "welcome", "ready": id < 200});
    answer(&mut model, &(0..400).map(waiting).collect::<Vec<_>>());
    assert_eq!(text(&model)[3], "first 200 ready, 200 delayed of ~1.2M");
    press(&mut model, "/39");
    key(&mut model, KeyCode::Enter);
    press(&mut model, "s");
    assert_eq!(text(&model)[3], "14 match in first 200 ready, 200 delayed of ~1.2M  /39  by job ↓");
    let mut model = at(80, 24, Page::Failing);
    answer(&mut model, &(0..200).map(|id| json!({"id": id})).collect::<Vec<_>>());
    assert_eq!(text(&model)[3], "first 200");
    answer(&mut model, &[]);
    assert_eq!((text(&model)[3].as_str(), text(&model)[5].as_str()), ("0 rows", "none"));
    assert_eq!(text(&Model::new(Page::Dead))[3], "reading the database …");
}

#[test]
fn an_opened_queue_and_job_are_named() {
    let mut model = at(80, 24, Page::Queues);
    key(&mut model, KeyCode::Enter);
    answer(&mut model, &[json!({"id": 3, "kind": "welcome"})]);
    assert_eq!(text(&model)[3], "waiting in mail  1 row");
    key(&mut model, KeyCode::Enter);
    let job = json!({"id": 3, "state": "dead", "payload": {"to": "a"}, "errors": [{"error": "no luck", "attempt": 1}]});
    model.update(Update::Job(3, Ok(Row::parse(&job.to_string()))));
    let shown = text(&model);
    assert_eq!((shown[3].as_str(), shown[4].as_str()), ("job 3", "id     3"));
    assert!(shown.contains(&"    \"to\": \"a\"".to_owned()) && shown.contains(&"  no luck".to_owned()), "{shown:#?}");
    assert_eq!(shown[23], "r revive  Esc back  ? help  q quit");
}

#[test]
fn a_worker_and_a_schedule_show_all_their_columns() {
    let mut model = at(80, 24, Page::Workers);
    key(&mut model, KeyCode::Enter);
    let shown = text(&model).join("\n");
    assert!(shown.contains("queues      mail, bulk") && !shown.contains("started seconds"), "{shown}");
    answer(&mut model, &[]);
    assert!(text(&model)[4].contains("gone"));
    let mut model = at(40, 12, Page::Schedules);
    key(&mut model, KeyCode::Enter);
    assert!(text(&model).contains(&"timing  0 3 * * *".to_owned()), "{:#?}", text(&model));
}

#[test]
fn a_lost_connection_is_shown_beside_the_last_rows() {
    for width in [20, 40, 80] {
        let mut model = at(width, 24, Page::Queues);
        model.update(Update::Lost("is the server running?".into()));
        let shown = text(&model);
        assert!(shown[0].contains("LOST for") && shown[5].contains("mail"), "{shown:#?}");
    }
}

#[test]
fn a_question_a_filter_and_help_are_shown() {
    let mut model = at(80, 24, Page::Running);
    press(&mut model, "c");
    assert_eq!(text(&model)[23], "cancel job 7? y: yes, any other key: no");
    model.size = (20, 12);
    assert_eq!(text(&model)[11], "cancel job 7? y/n");
    press(&mut model, "n/abc");
    assert_eq!(text(&model)[11], "/abc_");
    model.size = (40, 12);
    key(&mut model, KeyCode::Esc);
    press(&mut model, "?");
    assert_eq!(text(&model)[4], HELP.lines().next().unwrap());
    press(&mut model, "G");
    assert_eq!(text(&model)[10], HELP.lines().last().unwrap());
    assert!(HELP.lines().all(|line| line.width() <= 40));
}

#[test]
fn a_selected_row_is_on_the_screen() {
    let mut model = at(40, 12, Page::Waiting);
    model.update(Update::List(model.want(), Ok(rows(&(100..300).map(|id| json!({"id": id})).collect::<Vec<_>>()))));
    press(&mut model, "G");
    let shown = text(&model);
    assert!(shown[10].starts_with("  299") && shown[5].starts_with("  294"), "{shown:#?}");
}

#[test]
fn without_colours_there_are_none() {
    let coloured = |colours| {
        let lines = lines(&at(80, 24, Page::Queues), Look { colours });
        lines.iter().any(|line| {
            line.style.fg.is_some() || line.spans.iter().any(|span| span.style.fg.is_some() || span.style.bg.is_some())
        })
    };
    assert_eq!((coloured(true), coloured(false)), (true, false));
}
