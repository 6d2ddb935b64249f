//! Nothing of a guest is markup, and no chart is drawn in the page itself.

use std::net::TcpListener;
use std::path::PathBuf;

use serde_json::{Value, json};

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

/// A browser, where there is one.
fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.exists()))
}

#[test]
fn in_a_browser_no_chart_touches_the_page_and_nothing_is_loaded() {
    let Some(browser) = browser() else {
        eprintln!("skipped: there is no Chromium on this machine");
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let encoding = json!({ "x": { "field": "c", "type": "nominal" }, "y": { "value": 10 } });
    let bar = |more: Value| {
        let mut spec = json!({ "data": { "name": "t" }, "mark": "bar", "height": 200, "encoding": encoding });
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        spec
    };
    let bound = ["h1", ".facts", ".sites", "style", "title", "table", "#report", "body"].iter().enumerate().map(|(index, element)| {
        json!({ "name": format!("p{index}"), "value": "epsilon 0.01, reviewed", "bind": { "input": "text", "element": element } })
    });
    let specs = [
        bar(json!({})),
        bar(json!({ "params": bound.collect::<Vec<_>>() })),
        bar(json!({ "data": { "url": url }, "mark": { "type": "image", "url": url } })),
        bar(
            json!({ "data": { "values": [{ "c": "x" }] }, "mark": { "type": "image", "url": url, "href": "javascript:alert(1)", "width": 9, "height": 9 } }),
        ),
        bar(
            json!({ "usermeta": { "embedOptions": { "loader": { "baseURL": url } } }, "config": { "font": format!("x; background: url({url})") } }),
        ),
        bar(json!({ "data": { "sequence": { "start": 0, "stop": 3e8 } } })),
    ];
    let charts: Vec<Chart> = specs.iter().map(|spec| Chart { title: "c".into(), spec: spec.to_string() }).collect();
    let report = Report { charts: charts.clone(), ..report("x") };
    let report = Report { tables: vec![Table { title: "t".into(), ..report.tables[0].clone() }], ..report };
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("page.html");
    std::fs::write(
        &file,
        whole("the title", "<p class=\"facts\">epsilon 2.5</p><ul class=\"sites\"><li>leiden</li></ul>", &report),
    )
    .unwrap();
    let mut command = std::process::Command::new(browser);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--virtual-time-budget=60000",
        // All frames are in sight: what is not, is not laid out.
        "--window-size=900,6000",
        "--dump-dom",
    ]);
    command.arg(format!("--user-data-dir={}", temp.path().join("profile").display()));
    let output = command.arg(format!("file://{}", file.display())).output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    let ours = page.split("id=\"library\"").next().unwrap();
    for line in [
        "<h1>the title</h1>",
        "epsilon 2.5</p>",
        "<li>leiden</li>",
        "<title>the title</title>",
        ".sites li",
        "<td>x</td>",
        "\"charts\"",
    ] {
        assert!(ours.contains(line), "{line} is gone: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(!ours.contains("epsilon 0.01, reviewed</"), "a chart wrote into the page");
    assert_eq!(ours.matches("<iframe sandbox=\"allow-scripts\"").count(), charts.len());
    // A frame that was drawn says how high it is: the first as high as its bars.
    let heights: Vec<u32> =
        ours.split("style=\"height: ").skip(1).filter_map(|rest| rest.split("px").next()?.parse().ok()).collect();
    assert!(heights.len() == charts.len() && heights[0] > 200 && heights[1] > 200, "{heights:?}");
    assert!(heights[5] < 100, "rows without end are not drawn: {heights:?}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "something was loaded");
}

#[test]
fn in_csv_no_cell_is_a_formula() {
    // The page's own script, with as much of a page around it as it looks at.
    let page = r#"
        const report = { charts: [], tables: [{ title: "t", columns: [
            { name: "=1", values: { texts: ["=A1", "+1", "-1", "@x", "\t=1", "\r=1", "a=1", "\"q"] } },
            { name: "n", values: { numbers: [-1, 2, null, 4, 5, 6, 7, 8] } } ] }] };
        const button = { dataset: { table: "0" }, addEventListener: (_, then) => { button.click = then; } };
        const texts = { report: JSON.stringify(report), library: "" };
        globalThis.document = { getElementById: (id) => ({ textContent: texts[id] }), querySelector: () => ({ content: "" }),
            querySelectorAll: () => [button], createElement: () => ({ click() {} }) };
        globalThis.addEventListener = () => {};
        globalThis.URL = { createObjectURL: (blob) => { console.log(JSON.stringify(blob)); return ""; } };
        globalThis.Blob = function (parts) { return parts; };
    "#;
    let output = std::process::Command::new("node").args(["-e", &format!("{page}\n{DRAW}\nbutton.click();")]).output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no Node on this machine");
        return;
    };
    let parts: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
    let want = "\"'=1\",\"n\"\n\"'=A1\",-1\n\"'+1\",2\n\"'-1\",\n\"'@x\",4\n\"'\t=1\",5\n\"'\r=1\",6\n\"a=1\",7\n\"\"\"q\",8\n";
    assert_eq!(parts.concat(), want);
}
