//! Hostile guests: whatever one does to some people, the others' sum is what it would be, and what is counted stays in the bound.

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use vestibule_protocol::catalogue::VariantSlice;
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_runtime::dataset::{DataFolder, Dataset, Same, StoreKey, Value, ingest};
use vestibule_runtime::trial::{self, Trial};
use vestibule_sandbox::{Sandbox, Settings};

use crate::world::{component, importers, root};

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
    let source = DataFolder::from(Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap());
    let key = StoreKey::from_bytes([1; 32]);
    let recipe = std::fs::read_to_string(temp.path().join("DATASET.toml")).unwrap();
    ingest((&source, &recipe), (&source, &key), &importers(), Same::TakeOver, &mut |_| {}).unwrap();
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
            assert!(trial.faults[0].what.contains(says), "{how}: {}", trial.faults[0].what);
        }
    }
    // In `prepare` there is nobody's data: what goes wrong there ends the round, in words; what it leaves is the same for everybody.
    for (how, says) in [
        ("loop in prepare", "fuel"),
        ("panic in prepare", "a planted panic in prepare"),
        ("refuse in prepare", "refused its input in `prepare`"),
    ] {
        let params = serde_json::json!({ "how": how }).to_string();
        let error = trial::run(&analysis, &params, &dataset, budget, limits).unwrap_err().to_string();
        assert!(error.contains(says), "{how}: {error}");
    }
    for how in ["find what was laid", "fill memory in prepare"] {
        let params = serde_json::json!({ "how": how }).to_string();
        let trial = trial::run(&analysis, &params, &dataset, budget, limits).unwrap();
        let each = if how == "find what was laid" { 0.5 } else { 0.0 };
        assert_eq!(trial.rounds[0].exact[0][0], WOMEN * 0.5 + MEN * each, "{how}");
    }
    // A choice of two among six: which, and nothing of how many spoke for them.
    let vote = &run("vote").rounds[0];
    assert_eq!(vote.exact[0], [0.0, MEN, 0.0, 0.0, WOMEN + MEN, 0.0]);
    assert_eq!((&vote.released[0].values, vote.released[0].noise_sd), (&vec![0.0, 1.0, 0.0, 0.0, 1.0, 0.0], 0.0));
    // Factors for the host to multiply: infinite ones and such as are no numbers, from men; women's would have a norm of more than 1 too.
    let slices = serde_json::json!([{ "contig": "1", "start": 1, "end": 400_000_000 }]);
    let params = serde_json::json!({ "how": "factors", "catalogue": "panel", "slices": slices }).to_string();
    let factors = trial::run(&analysis, &params, &dataset, budget, limits).unwrap();
    assert_eq!(factors.fault_count, 0);
    let slice = VariantSlice { catalogue: "panel".into(), contig: "1".into(), start: 1, end: 400_000_000 };
    let selection = dataset.select(&["sex".into()], &[slice]).unwrap();
    let d = selection.dosages();
    let (mut want, mut values, mut dosages) = (vec![0.0; 2 * d], vec![], vec![]);
    for group in 0..dataset.row_groups() {
        let rows = dataset.read(&selection, group).unwrap();
        for index in 0..rows.len() {
            rows.fill(index, &mut values, &mut dosages);
            let scores: Vec<f64> = dosages.iter().map(|g| if *g < 3 { f64::from(*g) - 1.0 } else { 0.0 }).collect();
            let norm = scores.iter().map(|score| score * score).sum::<f64>().sqrt();
            // A norm of 1 for everybody, in the direction that was asked for.
            let half = 0.5_f64.sqrt();
            let [first, second] = if values[0] == Value::Level(1) { [1.0, 0.0] } else { [half, -half] };
            for (at, score) in scores.iter().enumerate() {
                want[at] += first * score / norm;
                want[d + at] += second * score / norm;
            }
        }
    }
    assert!(d > 20 && want.iter().any(|sum| sum.abs() > 10.0));
    for (at, (found, want)) in factors.rounds[0].exact[0].iter().zip(&want).enumerate() {
        // Each of 503 people is cut to whole steps of 2^-18.
        assert!((found - want).abs() < 503.0 / 262_144.0, "entry {at}: {found}, not {want}");
    }
    // A dry run says where.
    let message = &run("panic").faults[0].what;
    assert!(message.contains("src/lib.rs:"), "{message}");
}
