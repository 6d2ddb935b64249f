//! `analysis new`: a crate that builds and passes its own test, with nothing at hand but this binary and Rust.
//!
//! *In*: a folder that is not there yet (or is empty), and the name of an example analysis. *Out*: that example as a crate of the
//! folder's name, with the SDK and the contract beside it: all embedded in this binary. *Refuses*: a folder with something in it, a
//! name that cannot be a crate's, an unknown template, naming those there are.

use std::path::Path;

use anyhow::Result;

use crate::failure::Failure;
use crate::files::write;

/// An example analysis, as it is in the tree.
struct Template {
    name: &'static str,
    manifest: &'static str,
    readme: &'static str,
    source: &'static str,
    test: &'static str,
}

macro_rules! template {
    ($name:literal, $test:literal) => {
        Template {
            name: $name,
            manifest: include_str!(concat!("../../../guest-examples/", $name, "/Cargo.toml")),
            readme: include_str!(concat!("../../../guest-examples/", $name, "/README.md")),
            source: include_str!(concat!("../../../guest-examples/", $name, "/src/lib.rs")),
            test: include_str!(concat!("../../../guest-examples/", $name, "/tests/", $test, ".rs")),
        }
    };
}

const TEMPLATES: [Template; 5] = [
    template!("cohort-summary", "cohort_summary"),
    template!("allele-frequency", "allele_frequency"),
    template!("linear-association", "linear_association"),
    template!("logistic-regression", "logistic_regression"),
    template!("median-regression", "median_regression"),
];

macro_rules! sdk {
    ($path:literal) => {
        ($path, include_str!(concat!("../../../sdk/", $path)))
    };
}

/// The SDK's files. In the tree `wit` is a link to the contract; here it is the contract itself.
const SDK: &[(&str, &str)] = &[
    sdk!("Cargo.toml"),
    sdk!("src/analysis.rs"),
    sdk!("src/bindings.rs"),
    sdk!("src/bins.rs"),
    sdk!("src/contributions.rs"),
    sdk!("src/design.rs"),
    sdk!("src/driver.rs"),
    sdk!("src/error.rs"),
    sdk!("src/estimate.rs"),
    sdk!("src/guest.rs"),
    sdk!("src/history.rs"),
    sdk!("src/individual.rs"),
    sdk!("src/kernels.rs"),
    sdk!("src/lib.rs"),
    sdk!("src/matrix.rs"),
    sdk!("src/memory.rs"),
    sdk!("src/panic.rs"),
    sdk!("src/plan.rs"),
    sdk!("src/pvalue.rs"),
    sdk!("src/report.rs"),
    sdk!("src/report/chart.rs"),
    sdk!("src/round.rs"),
    sdk!("src/scores.rs"),
    sdk!("src/shape.rs"),
    sdk!("src/testing.rs"),
    sdk!("src/testing/cohort.rs"),
    sdk!("src/testing/outcome.rs"),
    sdk!("src/testing/reduce.rs"),
    ("wit/analysis.wit", include_str!("../../../wit/analysis.wit")),
];

/// The SDK's folder in a new crate.
const SDK_FOLDER: &str = "vestibule-sdk";

/// Writes a new crate to `dir`; the crate's name.
pub(crate) fn new(dir: &Path, template: &str) -> Result<String> {
    let Some(template) = TEMPLATES.iter().find(|known| known.name == template) else {
        let known = TEMPLATES.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
        return Err(Failure::input("template-unknown", format!("no template `{template}`; there are: {known}")));
    };
    let name = crate_name(dir)?;
    if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) || dir.is_file() {
        return Err(Failure::input("folder-not-empty", format!("{} is there already: name a new folder", dir.display())));
    }
    let module = name.replace('-', "_");
    let manifest = template.manifest.replacen(&format!("name = \"{}\"", template.name), &format!("name = \"{name}\""), 1);
    let manifest = manifest.replace("../../sdk", SDK_FOLDER);
    let test = template.test.replace(&template.name.replace('-', "_"), &module);
    put(dir, "Cargo.toml", &format!("{manifest}\n# A workspace of its own, wherever this folder lies.\n[workspace]\n"))?;
    put(dir, ".gitignore", "/target\n*.wasm\n")?;
    put(dir, "README.md", template.readme)?;
    put(dir, "src/lib.rs", template.source)?;
    put(dir, &format!("tests/{module}.rs"), &test)?;
    for (path, text) in SDK {
        put(&dir.join(SDK_FOLDER), path, text)?;
    }
    Ok(name)
}

fn put(dir: &Path, path: &str, text: &str) -> Result<()> {
    let path = dir.join(path);
    if let Some(folder) = path.parent() {
        let fail = |error| Failure::input("file-unwritable", format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    write(&path, text)
}

/// The folder's name, if a crate can have it.
fn crate_name(dir: &Path) -> Result<String> {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let good = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
        && !["vestibule-sdk", "test", "core", "std", "alloc", "serde", "crate", "self", "super"].contains(&name);
    if good {
        return Ok(name.to_owned());
    }
    let why = format!("the folder's name becomes the crate's: small letters, digits, - and _, a letter first; found `{name}`");
    Err(Failure::input("crate-name", why))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    use super::*;
    use crate::analysis::build::build;

    fn files(dir: &Path, under: &Path, found: &mut BTreeSet<String>) {
        for entry in dir.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, under, found);
            } else {
                found.insert(path.strip_prefix(under).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_of_the_sdk_and_every_example_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut there = BTreeSet::new();
        files(&root.join("sdk"), &root.join("sdk"), &mut there);
        assert_eq!(there, SDK.iter().map(|(path, _)| (*path).to_owned()).collect());
        let examples =
            root.join("guest-examples").read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let examples: BTreeSet<String> = examples.filter(|name| name != "hostile").collect();
        assert_eq!(examples, TEMPLATES.iter().map(|template| template.name.to_owned()).collect());
    }

    #[test]
    fn what_cannot_be_made_is_refused_and_nothing_is_written() {
        let temp = tempfile::tempdir().unwrap();
        let refused = |name: &str, template: &str, says: &str| {
            let error = new(&temp.path().join(name), template).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        refused("good", "no-such", "there are: cohort-summary, allele-frequency");
        refused("Bad Name", "cohort-summary", "`Bad Name`");
        refused("1st", "cohort-summary", "`1st`");
        assert_eq!(temp.path().read_dir().unwrap().count(), 0);
        std::fs::create_dir(temp.path().join("taken")).unwrap();
        std::fs::write(temp.path().join("taken/file"), "").unwrap();
        refused("taken", "cohort-summary", "is there already");
    }

    /// In two folders: the same bytes, though paths differ; no imports (`build` refuses them). In one: its own test passes.
    /// What both need compiled is kept beside them between runs.
    #[cfg(unix)]
    #[test]
    fn a_new_crate_passes_its_test_and_builds_to_the_same_bytes_anywhere() {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/scaffold");
        std::fs::create_dir_all(place.join("target")).unwrap();
        let place = place.canonicalize().unwrap();
        let dirs = ["a/my-analysis", "another/folder/my-analysis"].map(|dir| place.join(dir));
        let digests = dirs.each_ref().map(|dir| {
            if dir.exists() {
                std::fs::remove_dir_all(dir).unwrap();
            }
            assert_eq!(new(dir, "cohort-summary").unwrap(), "my-analysis");
            // The versions that the project itself is locked to: nothing is fetched that is not there.
            std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock"), dir.join("Cargo.lock")).unwrap();
            std::os::unix::fs::symlink(place.join("target"), dir.join("target")).unwrap();
            let built = build(dir, None, &mut |_| {}).unwrap();
            assert_eq!(built.path, dir.canonicalize().unwrap().join("my-analysis.wasm"));
            assert!((10_000..400_000).contains(&built.bytes), "{} bytes", built.bytes);
            built.digest
        });
        assert_eq!(digests[0], digests[1]);
        let tested = Command::new(env!("CARGO")).args(["test", "--quiet", "--offline"]).current_dir(&dirs[0]).output().unwrap();
        assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    }
}
