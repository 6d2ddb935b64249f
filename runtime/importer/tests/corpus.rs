//! The kept corpus of fuzzing, and what is near it, through the same functions: what was found once stays found.
#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

use vestibule_importer::fuzz;

/// Reads bytes as a target does.
type Reader = fn(&[u8]);

const TARGETS: [(&str, Reader); 6] = [
    ("variants", fuzz::variants),
    ("plink", fuzz::plink),
    ("table", fuzz::table),
    ("crypt4gh", fuzz::crypt4gh),
    ("documents", fuzz::documents),
    ("said", fuzz::said),
];

/// Each file; cut at some places; with some bytes changed.
fn near(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let step = bytes.len() / 24 + 1;
    let cuts = (0..bytes.len()).step_by(step).map(|length| bytes[..length].to_vec());
    let flips = (0..bytes.len()).step_by(step).flat_map(|at| {
        [0x01, 0x80, 0xff].map(|flip| {
            let mut changed = bytes.to_vec();
            changed[at] ^= flip;
            changed
        })
    });
    std::iter::once(bytes.to_vec()).chain(cuts).chain(flips)
}

#[test]
fn no_file_of_the_corpus_and_none_near_it_breaks_a_reader() {
    // A panic in noodles is turned into an error, and not shown; any other ends the test.
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|place| place.file().contains("/noodles-")) {
            shown(panic);
            std::process::abort();
        }
    }));
    for (target, run) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 3, "{} holds next to nothing", folder.display());
        for file in files {
            near(&std::fs::read(&file).unwrap()).for_each(|bytes| run(&bytes));
        }
    }
}
