//! Others' files: four hospitals' tables, the conformance files of the VCF specification; and the guide's own examples.

use super::*;

#[test]
fn four_real_hospitals_are_read_as_their_readme_counts_them() {
    let Some(data) = real_data() else { return };
    let dictionary = "name = \"heart\"\n[[column]]\nname = \"age\"\ntype = \"number\"\nlower = 0\nupper = 120\n\
        [[column]]\nname = \"chol\"\ntype = \"number\"\nlower = 50\nupper = 700\n[[column]]\nname = \"sick\"\ntype = \"flag\"\n";
    let columns =
        r#"["age","sex","cp","trestbps","chol","fbs","restecg","thalach","exang","oldpeak","slope","ca","thal","num"]"#;
    for (site, people, sick, no_chol) in
        [("cleveland", 303, 139, 0), ("hungarian", 294, 106, 23), ("switzerland", 123, 115, 123), ("va", 200, 149, 56)]
    {
        let config = format!(
            "{HEAD}[[table]]\nfile = \"processed.{site}.data\"\nid = \"#\"\ncolumns = {columns}\nmissing = [\"?\"]\n\
             [map.age]\ncolumn = \"age\"\n[map.chol]\ncolumn = \"chol\"\nmissing = [\"0\"]\n[map.sick]\ncolumn = \"num\"\nabove = 0\n"
        );
        let (temp, report) = ingest_real(&data.join("uci-heart"), &[("dictionary.toml", dictionary)], &config);
        assert_eq!(report.individuals, people, "{site}: {report}");
        let data = Dir::open_ambient_dir(temp.path().join("data"), ambient_authority()).unwrap();
        let dataset = Dataset::open(&data.into(), &"cohort".parse().unwrap(), &key()).unwrap();
        let rows = rows(&dataset, &["chol", "sick"], &[]);
        assert_eq!(rows.iter().filter(|(values, _)| values[1] == Value::Flag(true)).count(), sick, "{site}");
        assert_eq!(rows.iter().filter(|(values, _)| values[0] == Value::Missing).count(), no_chol, "{site}");
    }
}

/// Files that the specification calls valid are read, with all their variants; of broken ones none makes the reader panic, and each
/// that is refused is named.
#[test]
fn the_conformance_files_are_read_or_refused_by_name() {
    let Some(data) = real_data() else { return };
    let (mut read, mut refused) = (0, 0);
    for version in ["4.1", "4.2"] {
        for verdict in ["passed", "failed"] {
            let folder = data.join("vcf-conformance/hts-specs").join(version).join(verdict);
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                let text = String::from_utf8_lossy(&bytes);
                let plain = |allele: &str| !allele.is_empty() && allele.bytes().all(|base| b"ACGT".contains(&base));
                let mut panel = std::collections::BTreeSet::new();
                for line in text.lines().filter(|line| !line.starts_with('#')) {
                    let f: Vec<&str> = line.split('\t').collect();
                    let [contig, position, _, reference, alternates, ..] = f[..] else { continue };
                    let Ok(position) = position.parse::<u64>() else { continue };
                    for alternate in alternates.split(',').filter(|alt| plain(alt) && plain(reference) && position > 0) {
                        panel.insert((
                            contig.trim_start_matches("chr").to_owned(),
                            position,
                            reference.to_owned(),
                            alternate.to_owned(),
                        ));
                    }
                }
                let samples =
                    text.lines().find(|line| line.starts_with("#CHROM")).map_or(0, |line| line.split('\t').skip(9).count());
                let mut catalogue = "#catalogue\tpanel\n#build\tGRCh37\ncontig\tposition\tref\talt\n".to_owned();
                for (contig, position, reference, alternate) in &panel {
                    catalogue += &format!("{contig}\t{position}\t{reference}\t{alternate}\n");
                }
                if panel.is_empty() || Catalogue::parse(catalogue.as_bytes()).is_err() {
                    catalogue = CATALOGUE.to_owned();
                    panel.clear();
                }
                let case = Case::new(&[("panel.tsv", &catalogue)]);
                std::fs::write(case.temp.path().join("a.vcf"), &bytes).unwrap();
                match case.ingest(&format!("{HEAD}{VARIANTS}")) {
                    Ok(report) if verdict == "passed" => {
                        assert_eq!(report.individuals, samples as u64, "{}", path.display());
                        // Two files have records without genotypes, which are told and left out.
                        let without = report.notes.keys().any(|kind| kind.contains("without genotypes"));
                        let all = report.variants_matched == panel.len() as u64;
                        assert!(all != without, "{}: {report}", path.display());
                        read += 1;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let text = error.to_string();
                        assert!(!text.contains("holds something malformed"), "a panic: {}", path.display());
                        assert!(text.contains("a.vcf") || (samples == 0 && text.contains("no individual")), "{text}");
                        assert!(verdict == "failed" || samples == 0, "{}: {text}", path.display());
                        refused += usize::from(verdict == "failed");
                    }
                }
            }
        }
    }
    assert!(read >= 30 && refused >= 200, "{read} valid files read, {refused} broken ones refused");
}

/// The examples of docs/DATASETS.md are what a site copies: they must be right.
#[test]
fn the_examples_of_the_guide_are_read() {
    let guide = include_str!("../../../../docs/DATASETS.md");
    let blocks: Vec<&str> = guide.split("```").skip(1).step_by(2).collect();
    let of = |language: &str| blocks.iter().filter_map(|block| block.strip_prefix(language)).collect::<Vec<_>>();
    let [dictionary, recipe] = of("toml\n")[..] else { panic!("two TOML examples") };
    let dictionary = Dictionary::parse(dictionary).unwrap();
    let config = Config::parse(recipe).unwrap();
    assert_eq!(config.mappings(&dictionary).unwrap().iter().flatten().count(), 2);
    let [catalogue] = of("text\n")[..] else { panic!("one catalogue") };
    assert_eq!(Catalogue::parse(catalogue.as_bytes()).unwrap().variants.len(), 1);
}
