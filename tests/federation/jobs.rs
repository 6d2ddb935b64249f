//! Jobs and refusals over two sites.

use serde_json::Value;

use crate::world::World;

const SUMMARY: &str = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 2\n[params]\ncolumns = [\"age\", \"sex\"]\n";

fn column<'a>(result: &'a Value, table: &str, column: &str) -> &'a Vec<Value> {
    let tables = result["report"]["tables"].as_array().unwrap();
    let table = tables.iter().find(|found| found["title"] == table).unwrap();
    let column = table["columns"].as_array().unwrap().iter().find(|found| found["name"] == column).unwrap();
    column["values"]["numbers"].as_array().unwrap()
}

#[test]
fn two_sites_answer_and_every_refusal_says_why() {
    let mut world = World::new(&["kyoto", "leiden"]);

    // The job itself: the sums of 504 + 503 people, within 6 standard deviations of their noise (a false alarm in 10^8 runs).
    let job = world.submitted("cohort-summary", SUMMARY);
    let status = world.ended(&job);
    assert_eq!(status["state"], "finished", "{status}");
    let (code, result) = world.job(&["result", &job, "--html", "page.html"]);
    assert_eq!(code, 0);
    let (people, sd) = (column(&result, "sex", "people"), column(&result, "sex", "people sd"));
    let total: f64 = people.iter().map(|n| n.as_f64().unwrap()).sum();
    assert!((total - 1007.0).abs() < 6.0 * 2.0_f64.sqrt() * sd[0].as_f64().unwrap(), "{total}");
    assert!(std::fs::read_to_string(world.dir().join("page.html")).unwrap().contains("vegaLite"));

    // The same budget at both sites: the whole job's, and nothing held back once it has ended.
    for site in ["kyoto", "leiden"] {
        let budget = crate::world::wait("the job's end at the site", || {
            let budget = world.ok(&["site", "budget", site]);
            (budget[0]["jobs"][0]["ended"] == true).then_some(budget)
        });
        assert_eq!(budget[0]["jobs"][0]["rounds"], 1, "{budget}");
        assert!((budget[0]["spent_epsilon"].as_f64().unwrap() - 1.0).abs() < 0.01, "{budget}");
        assert_eq!(budget[0]["reserved_rho"], 0.0, "{budget}");
    }

    let refused = |toml: &str, code: &str, says: &str| {
        let (exit, document) = world.submit("cohort-summary", toml);
        assert_eq!(document["error"]["code"], code, "{document}");
        assert!(document["error"]["message"].as_str().unwrap().contains(says), "{document}");
        assert!(exit == 1 || exit == 2, "{exit}");
    };
    refused(&SUMMARY.replace("\"sex\"", "\"height\""), "column-unknown", "age, sex, trait");
    refused(
        &SUMMARY.replace("[\"*\"]", "[\"paris\"]").replace("min_sites = 2", "min_sites = 1"),
        "site-unknown",
        "kyoto, leiden",
    );
    refused(&SUMMARY.replace("epsilon = 1.0", "epsilon = 0.0"), "epsilon-impossible", "epsilon");
    refused(&SUMMARY.replace("delta = 1e-6", "delta = 0.5"), "delta-impossible", "delta");
    refused(&SUMMARY.replace("min_sites = 2", "min_sites = 3"), "manifest-field", "min_sites");
    refused(&SUMMARY.replace("columns", "column"), "analysis-refused", "column");
    refused(&format!("epsilons = 1\n{SUMMARY}"), "job-file", "epsilons");
    // Another analysis: a catalogue that no site has, and a component that panics in `plan`.
    let (_, document) = world.submit(
        "allele-frequency",
        "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 2\n[params]\ncatalogue = \"nope\"\nslices = [{contig = \"1\", start = 1, end = 9}]\n",
    );
    let (code, message) = (&document["error"]["code"], document["error"]["message"].as_str().unwrap());
    assert!(code == "catalogue-unknown" && message.contains("`nope`"), "{document}");
    let hostile = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 2\n[params]\nhow = \"panic in plan\"\n";
    let (_, document) = world.submit("hostile", hostile);
    assert_eq!(document["error"]["code"], "analysis-trapped", "{document}");
    assert!(document["error"]["message"].as_str().unwrap().contains("`plan`"), "{document}");
    let (_, document) = world.submit("hostile", &hostile.replace("panic in plan", "loop in plan"));
    assert_eq!(document["error"]["code"], "analysis-trapped", "{document}");
    assert!(document["error"]["message"].as_str().unwrap().contains("fuel"), "{document}");

    // Over a site's own cap: decided there, before any data is touched.
    let job = world.submitted("cohort-summary", &SUMMARY.replace("epsilon = 1.0", "epsilon = 4.5"));
    let status = world.ended(&job);
    assert_eq!((&status["state"], &status["error"]["code"]), (&"failed".into(), &"too-few-sites".into()), "{status}");
    // The first refusal ends the job: the other site may not have answered yet.
    let over = |site: &Value| site["reason"]["code"] == "epsilon-over-site-cap";
    assert!(status["sites"].as_array().unwrap().iter().any(over), "{status}");

    // A project that a site takes no part in, or no longer.
    let list = world.ok(&["site", "charter", "list", "leiden"]);
    world.ok(&["site", "charter", "withdraw", "leiden", list[0]["charter"].as_str().unwrap()]);
    let job = world.submitted("cohort-summary", &SUMMARY.replace("min_sites = 2", "min_sites = 1"));
    let status = world.ended(&job);
    assert_eq!(status["state"], "finished", "{status}");
    assert_eq!(status["sites"][1]["reason"]["code"], "charter-unknown", "{status}");
    // Who is not in the report is named, and that nothing proves why.
    let left_out = world.job(&["result", &job]).1["proven"]["left_out"].clone();
    assert_eq!(left_out, serde_json::json!({ "leiden": "charter-unknown" }));
    let said = crate::world::run(world.dir(), &["job", "result", &job, "--key", "ada.pem", "--coordinator", &world.api()]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("leiden was to be asked and is not in this report: charter-unknown. Only the"), "{said}");
    // It may also take part for less: fewer columns, a smaller budget of the project's own.
    let narrow = |terms: &[&str], epsilon: &str, code: &str| {
        world.ok(&[&["site", "charter", "accept", "leiden", "project.json"], terms].concat());
        let job = SUMMARY.replace("min_sites = 2", "min_sites = 1").replace("[\"*\"]", "[\"leiden\"]");
        let job = world.submitted("cohort-summary", &job.replace("epsilon = 1.0", epsilon));
        let status = world.ended(&job);
        assert_eq!(status["sites"][0]["reason"]["code"], code, "{status}");
    };
    narrow(&["--column", "age"], "epsilon = 1.0", "charter-column");
    narrow(&["--epsilon", "1.5"], "epsilon = 1.2", "charter-budget-exhausted");
    world.ok(&["site", "charter", "accept", "leiden", "project.json"]);
    let page = String::from_utf8(crate::world::run(world.dir(), &["charter", "show", "project.json"]).stdout).unwrap();
    assert!(page.contains("Whether it holds.") && page.contains("DUO:0000037") && page.contains("kyoto, leiden"), "{page}");

    // What is left of kyoto's epsilon 10 does not hold this many jobs, each of which asks something else: the last are refused, and
    // never run.
    let exhausted = (10..50).any(|n| {
        let job = world.submitted("cohort-summary", &SUMMARY.replace("epsilon = 1.0", &format!("epsilon = 3.9{n}")));
        let status = world.ended(&job);
        let failed = status["state"] == "failed";
        if failed {
            let exhausted = |site: &Value| site["reason"]["code"] == "budget-exhausted";
            assert!(status["sites"].as_array().unwrap().iter().any(exhausted), "{status}");
            let budget = world.ok(&["site", "budget", "kyoto"]);
            assert!(budget[0]["spent_rho"].as_f64().unwrap() <= budget[0]["cap_rho"].as_f64().unwrap(), "{budget}");
        }
        failed
    });
    assert!(exhausted, "40 jobs of epsilon 4 went through a cap of 10");

    // A site that is not there: nothing is charged at the other one.
    world.kill_site("kyoto");
    world.connected(1);
    let before = world.ok(&["site", "budget", "leiden"])[0]["spent_rho"].clone();
    let late = SUMMARY.replace("[params]", "round_deadline_seconds = 1\n[params]");
    let status = world.ended(&world.submitted("cohort-summary", &late));
    assert_eq!(status["state"], "failed", "{status}");
    assert_eq!(status["error"]["code"], "too-few-sites", "{status}");
    let after = world.ok(&["site", "budget", "leiden"])[0]["spent_rho"].clone();
    assert_eq!(before, after);

    // A job that waits can be cancelled, once.
    let job = world.submitted("cohort-summary", SUMMARY);
    assert_eq!(world.job(&["cancel", &job]).1["state"], "cancelled");
    assert_eq!(world.ended(&job)["error"]["code"], "cancelled");
    let (code, document) = world.job(&["result", &job]);
    assert_eq!((code, &document["error"]["code"]), (2, &"job-without-result".into()));
}

/// Ten blocks at each site, each with some fifty people: enough for every one of them to fit. The number of fits is within 6 standard
/// deviations of its noise (a false alarm in 10^8 runs), which the summary gives as 1.96 of them.
#[test]
fn blocks_of_people_are_fitted_at_the_sites_and_averaged() {
    let world = World::new(&["kyoto", "leiden"]);
    let job = "epsilon = 4.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 2\n\
        [limits]\nfuel_per_partition = 10_000_000\nmemory_mib = 8\n\
        [params]\noutcome = \"trait\"\ncovariates = [\"sex\"]\nblocks = 10\n";
    let job = world.submitted("median-regression", job);
    let status = world.ended(&job);
    assert_eq!(status["state"], "finished", "{status}");
    let (_, result) = world.job(&["result", &job]);
    assert_eq!(column(&result, "Coefficients", "median").len(), 2, "{result}");
    let summary = result["report"]["summary"].as_str().unwrap();
    let numbers: Vec<f64> = summary.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [fits, margin] = numbers[..] else { panic!("{summary}") };
    assert!((fits - 20.0).abs() < 6.0 * margin / 1.96 && margin < 20.0, "{summary}");
}

/// What a site reads in while its daemon runs is there for researchers without a restart.
#[test]
fn a_dataset_that_is_read_in_meanwhile_is_known_soon() {
    let world = World::new(&["leiden"]);
    let recipe = world.dir().join("leiden-source/DATASET.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, text.replacen("\"cohort\"", "\"second\"", 1)).unwrap();
    world.ok(&["site", "ingest", "leiden", "leiden-source/DATASET.toml"]);
    crate::world::wait("the coordinator to know it", || {
        let sites = world.sites();
        let datasets = sites[0]["datasets"].as_array()?;
        datasets.iter().any(|dataset| dataset["name"] == "second").then_some(())
    });
}
