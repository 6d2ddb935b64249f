//! Unusual values in a row are looked for in everything that anybody but the dataset's own files holds afterwards: all files of the
//! coordinator, the site and the researcher, every log line, every answer. None is found.

use std::path::Path;

use crate::world::{World, wait};

/// As text, and as the bytes of a double.
const AGE: f64 = 61.803_398_87;
const TRAIT: f64 = 2.493_710_528;
const PERSON: &str = "CANARYqx7";

fn patterns() -> Vec<Vec<u8>> {
    let text = [PERSON.as_bytes().to_vec(), b"61.8033988".to_vec(), b"2.4937105".to_vec()];
    text.into_iter().chain([AGE, TRAIT].map(|value| value.to_le_bytes().to_vec())).collect()
}

fn found(bytes: &[u8]) -> bool {
    patterns().iter().any(|pattern| memchr::memmem::find(bytes, pattern).is_some())
}

/// Every file below `dir` that holds a canary.
fn holders(dir: &Path) -> (usize, Vec<String>) {
    let (mut files, mut holders) = (0, vec![]);
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else if let Ok(bytes) = std::fs::read(entry.path()) {
                files += 1;
                if found(&bytes) || found(entry.file_name().as_encoded_bytes()) {
                    let place = patterns().iter().find_map(|pattern| memchr::memmem::find(&bytes, pattern)).unwrap_or(0);
                    let around = &bytes[place.saturating_sub(60)..bytes.len().min(place + 60)];
                    holders.push(format!("{}: {}", entry.path().display(), around.escape_ascii()));
                }
            }
        }
    }
    (files, holders)
}

#[test]
fn no_trace_of_a_person_is_left_anywhere_but_in_the_dataset() {
    let mut world = World::new(&["leiden"]);
    // One more man, whose values are like nobody's, and who is in the table alone.
    let source = world.dir().join("leiden-source");
    let mut table = std::fs::read_to_string(source.join("people.csv")).unwrap();
    table += &format!("{PERSON},{AGE},M,{TRAIT}\n");
    std::fs::write(source.join("people.csv"), table).unwrap();
    world.ok(&["site", "ingest", "leiden", "leiden-source/DATASET.toml"]);
    assert!(holders(world.dir()).1.len() == 1, "the search finds the table: {:?}", holders(world.dir()));
    std::fs::remove_dir_all(source).unwrap();
    world.kill_site("leiden");
    world.kill_coordinator();
    world.log_everything();
    world.start_coordinator();
    world.start_site("leiden");
    world.all_connected();

    let terms = "epsilon = 0.5\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n";
    let mut said = String::new();
    for (analysis, params) in [
        ("hostile", "how = \"tell\""),
        ("hostile", "how = \"shout\""),
        ("hostile", "how = \"allocate\""),
        ("cohort-summary", "columns = [\"age\", \"sex\", \"trait\"]"),
        (
            "linear-association",
            "outcome = \"trait\"\ncovariates = [\"age\"]\ncatalogue = \"panel\"\nslices = [[\"8\", 1, 150_000_000]]",
        ),
    ] {
        let job = world.submitted(analysis, &format!("{terms}[params]\n{params}\n"));
        let status = world.ended(&job);
        assert_eq!(status["state"], "finished", "{params}: {status}");
        said += &status.to_string();
        said += &world.job(&["result", &job, "--html", &format!("{job}.html")]).1.to_string();
    }
    // A round that fails after it was charged: the dataset is damaged under it.
    let rows = world.version("leiden").join("people.rows");
    let mut bytes = std::fs::read(&rows).unwrap();
    let quarter = bytes.len() / 4;
    bytes[48..quarter].fill(7);
    std::fs::write(&rows, bytes).unwrap();
    let status = world.ended(&world.submitted("cohort-summary", &format!("{terms}[params]\ncolumns = [\"age\"]\n")));
    assert_eq!(status["sites"][0]["reason"]["code"], "no-release", "{status}");
    said += &status.to_string();
    said += &world.ok(&["site", "budget", "leiden"]).to_string();
    assert!(!found(said.as_bytes()), "{said}");

    world.kill_site("leiden");
    world.kill_coordinator();
    let log = wait("the log", || Some(world.log()).filter(|log| log.contains("a round released nothing")));
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "everything was to be logged");
    let (files, holders) = holders(world.dir());
    assert!(files > 30 && holders.is_empty(), "{files} files; found in {holders:?}");
}
