//! Hostile guests: whatever one does to some people, the others' sum is what it would be, and what is counted stays in the bound.

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_runtime::dataset::{Dataset, StoreKey, ingest};
use vestibule_runtime::trial::{self, Trial};
use vestibule_sandbox::{Sandbox, Settings};

use crate::world::{component, root};

const WOMEN: f64 = 255.0;
const MEN: f64 = 248.0;

#[test]
fn no_behaviour_moves_more_than_its_own_bounded_contribution() {
    let temp = tempfile::tempdir().unwrap();
    let data = root().join("cli/demo-data");
    for file in ["dictionary.toml", "panel.catalogue.tsv", "DATASET.toml"] {
        std::fs::copy(data.join(file), temp.path().join(file)).unwrap();
    }
    for file in ["people.csv", "genotypes.vcf.gz"] {
        std::fs::copy(data.join("leiden").join(file), temp.path().join(file)).unwrap();
    }
    let source = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
    let key = StoreKey::from_bytes([1; 32]);
    ingest(&source, &std::fs::read_to_string(temp.path().join("DATASET.toml")).unwrap(), &source, &key, &mut |_| {}).unwrap();
    let dataset = Dataset::open(&source, &"cohort".parse().unwrap(), &key).unwrap();
    let sandbox = Sandbox::new(Settings { symbols: true, ..Settings::default() }).unwrap();
    let analysis = sandbox.load(&std::fs::read(component("hostile")).unwrap()).unwrap();
    let limits = Limits { fuel_per_partition: 2_000_000, memory_mib: 64 };
    let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap();
    let run = |how: &str| -> Trial {
        trial::run(&analysis, &serde_json::json!({ "how": how }).to_string(), &dataset, budget, limits).unwrap()
    };
    // The behaviour, what a man counts for, and whether he counts as a fault with these words.
    for (how, each, says) in [
        ("remember", 0.5, None),
        ("panic", 0.0, Some("a planted panic")),
        ("loop", 0.0, Some("fuel")),
        ("recurse", 0.0, Some("")),
        ("allocate", 0.0, Some("")),
        ("nan", 0.0, None),
        ("infinite", 1.0, None),
        ("huge", 1.0, None),
        ("negative", 0.0, None),
    ] {
        let trial = run(how);
        assert_eq!(trial.rounds[0].exact[0][0], WOMEN * 0.5 + MEN * each, "{how}");
        assert_eq!(trial.fault_count, if says.is_some() { MEN as usize } else { 0 }, "{how}: {:?}", trial.faults.first());
        if let Some(says) = says {
            assert!(trial.faults[0].1.contains(says), "{how}: {}", trial.faults[0].1);
        }
    }
    // A choice of two among six: which, and nothing of how many spoke for them.
    let vote = &run("vote").rounds[0];
    assert_eq!(vote.exact[0], [0.0, MEN, 0.0, 0.0, WOMEN + MEN, 0.0]);
    assert_eq!((&vote.released[0].values, vote.released[0].noise_sd), (&vec![0.0, 1.0, 0.0, 0.0, 1.0, 0.0], 0.0));
    // A dry run says where.
    let (_, message) = &run("panic").faults[0];
    assert!(message.contains("src/lib.rs:"), "{message}");
}
