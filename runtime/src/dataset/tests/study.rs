//! One study as three hospitals code it.

use super::*;

const STUDY: &str = r#"
name = "study"
[[column]]
name = "sex"
type = "levels"
levels = ["F", "M"]
[[column]]
name = "age"
type = "number"
unit = "years"
lower = 0
upper = 120
[[column]]
name = "smoker"
type = "flag"
[[column]]
name = "enrolled"
type = "day"
[[column]]
name = "ldl"
type = "number"
unit = "mmol/L"
lower = 0
upper = 20
"#;

/// Sex, age, smoker and day of everybody, sorted; the LDL that is known, sorted by person; and each variant's dosages.
type Study = (Vec<String>, Vec<f64>, Vec<(u64, u64)>);

fn study(temp: &tempfile::TempDir, variants: usize) -> Study {
    let data = Dir::open_ambient_dir(temp.path().join("data"), ambient_authority()).unwrap();
    let dataset = Dataset::open(&data.into(), &"cohort".parse().unwrap(), &key()).unwrap();
    let slices = if variants == 0 {
        vec![]
    } else {
        vec![VariantSlice { catalogue: "chr20".into(), contig: "20".into(), start: 0, end: 1 << 40 }]
    };
    let (mut people, mut ldl, mut sums) = (vec![], vec![], vec![(0, 0); variants]);
    for (values, dosages) in rows(&dataset, &["sex", "age", "smoker", "enrolled", "ldl"], &slices) {
        if let [Value::Level(sex), Value::Number(age), Value::Flag(smoker), Value::Day(day), value] = values[..] {
            people.push(format!("{sex} {age} {smoker} {day}"));
            ldl.extend(if let Value::Number(ldl) = value { Some(ldl) } else { None });
        }
        for (sum, dosage) in sums.iter_mut().zip(dosages).filter(|(_, dosage)| *dosage != 255) {
            *sum = (sum.0 + 1, sum.1 + u64::from(dosage));
        }
    }
    people.sort();
    ldl.sort_by(f64::total_cmp);
    (people, ldl, sums)
}

/// Three hospitals that code the same things differently are read to what a pooled, harmonised study has (`truth/`, `defects.json`).
#[test]
fn three_codings_of_one_study_are_read_to_its_truth() {
    let Some(data) = real_data() else { return };
    let data = data.join("simulated-study/study");
    let defects: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("truth/defects.json")).unwrap()).unwrap();
    let truth_people = std::fs::read_to_string(data.join("truth/people.csv")).unwrap();
    // The catalogue: what the truth's own genotypes hold.
    let mut reader = noodles_bcf::io::reader::Builder::default().build_from_path(data.join("truth/genotypes.bcf")).unwrap();
    let header = reader.read_header().unwrap();
    let mut panel: Vec<(u64, String, String)> = reader
        .record_bufs(&header)
        .map(|record| record.unwrap())
        .map(|record| {
            let alternate = record.alternate_bases().as_ref()[0].clone();
            (record.variant_start().unwrap().get() as u64, record.reference_bases().to_owned(), alternate)
        })
        .collect();
    panel.sort();
    let mut catalogue = "#catalogue\tchr20\n#build\tGRCh37\ncontig\tposition\tref\talt\n".to_owned();
    for (position, reference, alternate) in &panel {
        catalogue += &format!("20\t{position}\t{reference}\t{alternate}\n");
    }
    let variants = |file: &str| {
        format!("[variants]\nfiles = [\"{file}\"]\nbuild = \"GRCh37\"\ncatalogue = [\"chr20.tsv\"]\nindividuals = \"table\"\n")
    };
    let truth_map = "[map.sex]\ncolumn = \"sex\"\nlevels = { F = \"F\", M = \"M\" }\n[map.age]\ncolumn = \"age\"\n[map.smoker]\n\
        column = \"smoker\"\nyes = [\"1\"]\nno = [\"0\"]\n[map.enrolled]\ncolumn = \"enrolled\"\nformat = \"%Y-%m-%d\"\n[map.ldl]\ncolumn = \"ldl\"\n";
    let sites = [
        (
            "site1",
            "genotypes.vcf.gz",
            "[[table]]\nfile = \"people.csv\"\nid = \"person_id\"\n[map.sex]\ncolumn = \"sex\"\nlevels = { 1 = \"M\", 2 = \"F\" }\n\
             [map.age]\ncolumn = \"age\"\n[map.smoker]\ncolumn = \"smoker\"\nyes = [\"1\"]\nno = [\"0\"]\n\
             [map.enrolled]\ncolumn = \"enrolled\"\nformat = \"%Y-%m-%d\"\n[map.ldl]\ncolumn = \"ldl_mmol_l\"\n",
        ),
        (
            "site2",
            "",
            "[[table]]\nfile = \"people.csv\"\nid = \"SUBJECT\"\nseparator = \"\\t\"\nmissing = [\"NA\"]\n[map.sex]\ncolumn = \"GENDER\"\n\
             levels = { F = \"F\", M = \"M\" }\n[map.age]\ncolumn = \"AGE_YRS\"\n[map.smoker]\ncolumn = \"SMOKING\"\nyes = [\"1\"]\n\
             no = [\"0\"]\n[map.enrolled]\ncolumn = \"VISIT_DATE\"\nformat = \"%m/%d/%Y\"\n[map.ldl]\ncolumn = \"LDL (mg/dL)\"\nscale = 0.02586\n",
        ),
        (
            "site3",
            "genotypes.vcf.gz",
            "[[table]]\nfile = \"people.csv\"\nid = \"Patient\"\nseparator = \";\"\ndecimal = \",\"\nmissing = [\"-9\"]\n[map.sex]\n\
             column = \"Sex\"\nlevels = { Male = \"M\", female = \"F\" }\n[map.age]\ncolumn = \"Age\"\n[map.smoker]\ncolumn = \"Smoker\"\n\
             yes = [\"yes\"]\nno = [\"no\"]\n[map.enrolled]\ncolumn = \"Date\"\nformat = \"%d.%m.%Y\"\n[map.ldl]\ncolumn = \"LDL-C\"\n",
        ),
    ];
    for (site, genotypes, recipe) in sites {
        let places = if genotypes.is_empty() { 0 } else { panel.len() };
        let section = if places == 0 { String::new() } else { variants(genotypes) };
        let documents = [("dictionary.toml", STUDY), ("chr20.tsv", catalogue.as_str())];
        let (temp, report) = ingest_real(&data.join(site), &documents, &format!("{HEAD}{recipe}{section}"));
        let (people, ldl, sums) = study(&temp, places);

        // The same people of the truth: those with a row here.
        let of = &defects["sites"][site];
        let absent: Vec<&str> = of["no_phenotype_row"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        let mut wanted: Vec<u64> = of["ids"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(id, _)| !absent.contains(&id.as_str()))
            .map(|(_, n)| n.as_u64().unwrap())
            .collect();
        wanted.sort_unstable();
        let mut lines = truth_people.lines();
        let head = lines.next().unwrap();
        let lines: Vec<&str> =
            lines.filter(|line| wanted.contains(&line.split(',').next().unwrap().parse().unwrap())).collect();
        let table = format!("{head}\n{}\n", lines.join("\n"));
        let documents = [documents[0], documents[1], ("table.csv", table.as_str())];
        let recipe =
            format!("{HEAD}[[table]]\nfile = \"table.csv\"\nid = \"person\"\n{truth_map}{}", variants("genotypes.bcf"));
        let (truth, _) = ingest_real(&data.join("truth"), &documents, &recipe);
        let (true_people, true_ldl, true_sums) = study(&truth, panel.len());

        assert_eq!(people.len(), wanted.len(), "{site}: {report}");
        assert_eq!(people, true_people, "{site}");
        // Some LDL is missing here and none there; rounding to mg/dL moves a value by at most 0.02.
        assert!(ldl.len() < true_ldl.len() && ldl.len() * 20 > true_ldl.len() * 19, "{site}: {}", ldl.len());
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert!((mean(&ldl) - mean(&true_ldl)).abs() < 0.05, "{site}: {} {}", mean(&ldl), mean(&true_ldl));
        let flipped: Vec<&str> = of["strand_flipped"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        let (mut same, mut left_out) = (0, 0);
        for ((found, truth), (position, reference, alternate)) in sums.iter().zip(&true_sums).zip(&panel) {
            // On its other strand an A/T or C/G variant looks like itself with its alleles swapped: nobody can tell.
            if ["AT", "TA", "CG", "GC"].contains(&format!("{reference}{alternate}").as_str()) {
                continue;
            }
            if flipped.contains(&format!("20:{position}:{reference}:{alternate}").as_str()) {
                assert_eq!(found.0, 0, "{site} {position}");
                left_out += 1;
            } else {
                // The site's own file has some missing genotypes; the truth has none.
                let missing = truth.0 - found.0;
                assert!(missing * 20 < truth.0 && truth.1 - found.1 <= 2 * missing, "{site} {position}: {found:?} {truth:?}");
                same += 1;
            }
        }
        assert!(places == 0 || (same > 3_000 && (site == "site1" || left_out > 20)), "{same} {left_out}");
    }
    // The second site's genotypes lie on another build: refused, and told how to go on.
    let source = Case::new(&[("chr20.tsv", &catalogue.replace("GRCh37", "GRCh38"))]);
    std::fs::copy(data.join("site2/genotypes.bcf"), source.temp.path().join("genotypes.bcf")).unwrap();
    let error = source.ingest(&format!("{HEAD}{}", variants("genotypes.bcf"))).unwrap_err().to_string();
    assert!(error.contains("GRCh38") && error.contains("one build"), "{error}");
}
