//! Nothing of a guest is markup, and no chart is drawn in the page itself.

use super::*;
use vestibule_protocol::report::{Chart, Column};

fn report(evil: &str) -> Report {
    let columns = vec![Column { name: evil.into(), values: Cells::Texts(vec![evil.into()]) }];
    Report {
        summary: evil.into(),
        tables: vec![Table { title: evil.into(), columns }],
        charts: vec![Chart { title: evil.into(), spec: format!("{{\"title\":{}}}", serde_json::to_string(evil).unwrap()) }],
    }
}

#[test]
fn nothing_of_a_guest_becomes_markup() {
    let evil = "</script><img src=x onerror=alert(1)>\"'\u{202e}\u{1b}";
    let page = whole(evil, "", &report(evil));
    assert!(!page.contains("<img"), "markup of a guest stands in the page");
    assert!(!page.contains(['\u{202e}', '\u{1b}']), "the direction of writing is turned");
    // Ours only: the data, the frame's library, the script that makes frames.
    assert_eq!(page.matches("</script>").count(), 3);
}

#[test]
fn a_page_runs_its_two_scripts_and_no_others_and_draws_in_frames_without_an_origin() {
    let page = whole("t", "", &report("x"));
    assert!(!page.contains("script-src 'unsafe-inline'") && page.contains("default-src 'none'"));
    let script = page.split_once("<script>").and_then(|(_, rest)| rest.rsplit_once("</script></body>")).unwrap().0;
    assert_eq!(script, DRAW);
    let library = page.split("id=\"library\">").nth(1).and_then(|rest| rest.split("</script>").next()).unwrap();
    assert!(page.contains(&digest(script)) && page.contains(&digest(library)));
    assert!(DRAW.contains("setAttribute(\"sandbox\", \"allow-scripts\")"));
    assert_eq!(DRAW.matches("allow-").count(), 1);
}
