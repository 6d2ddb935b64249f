//! Variant files of every kind, whole and damaged, one or many.

use std::io::Read as _;

use super::*;

#[test]
fn genotypes_of_every_kind_are_read() {
    let case = Case::new(&[(
        "a.vcf",
        &vcf(
            "A\tB\tC\tD\tE",
            &[
                "chr1 100 . A C . . . GT 0/0 0|1 1/1 ./. ./1",
                // Swapped ref and alt: turned.
                "1 200 . T G . . . GT 0/0 0/1 1/1 1 0",
                // Multi-allelic: each ALT by its own index.
                "1 300 . A G,C . . . GT 0/0 1/2 2/2 1/1 0/1/2",
                // A second record of the same variant is left out.
                "1 300 . A C . . . GT 1/1 1/1 1/1 1/1 1/1",
                // The other strand is not guessed at; unknown variants are left out. Unsorted is fine.
                "2 50 . G A . . . GT 0/1 0/1 0/1 0/1 0/1",
                "1 150 . A C . . . GT 1/1 1/1 1/1 1/1 1/1",
            ],
        ),
    )]);
    let report = case.ingest(&format!("{HEAD}{VARIANTS}")).unwrap();
    assert_eq!((report.individuals, report.records, report.variants_matched), (5, 6, 4));
    let kinds: Vec<(&str, u64)> = report.notes.iter().map(|(kind, note)| (kind.as_str(), note.count)).collect();
    assert_eq!(
        kinds,
        [
            ("further records of a variant, left out", 1),
            ("genotypes with more than two alleles, taken for missing", 1),
            ("records that are in no catalogue, left out", 1),
            ("records that would match on the other strand, left out", 1),
            ("records with ref and alt the other way round, turned", 1),
        ]
    );
    let mut found: Vec<Vec<u8>> = rows(&case.open(), &[], &everything()).into_iter().map(|(_, dosages)| dosages).collect();
    found.sort();
    // In catalogue order: 1:100 A>C, 1:200 G>T, 1:300 A>C, 1:300 A>G, 2:50.
    assert_eq!(
        found,
        [
            vec![0, 2, 0, 0, 255],
            vec![1, 1, 1, 1, 255],
            vec![2, 0, 2, 0, 255],
            vec![255, 0, 0, 2, 255],
            vec![255, 1, 255, 255, 255],
        ]
    );
}

#[test]
fn tables_and_variant_files_are_joined_and_a_small_memory_gives_the_same() {
    let files = [
        ("people.csv", "id,age,sex\nA,30,F\nB,40,M\nX,50,M\n".to_owned()),
        ("a.vcf", vcf("A\tN", &["1 100 . A C . . . GT 0/1 1/1"])),
        ("b.vcf", vcf("B", &["1 100 . A C . . . GT 1/1"])),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let config = format!("{HEAD}{}{VARIANTS}", TABLE);
    let mut results = Vec::new();
    for tuning in [Tuning::default(), Tuning { memory: 1, checkpoint: 0, ..Tuning::default() }] {
        let case = Case::new(&files);
        let report = case.ingest_tuned(&config, tuning, &mut |_| {}).unwrap();
        assert_eq!((report.individuals, report.with_table, report.with_genotypes), (4, 3, 3));
        assert_eq!(report.notes.values().map(|note| note.count).collect::<Vec<_>>(), [1, 1]);
        let mut found: Vec<String> = Vec::new();
        for (values, dosages) in rows(&case.open(), &["age"], &everything()[..1]) {
            let age = if let Value::Number(age) = values[0] { age } else { -1.0 };
            found.push(format!("{age} {}", dosages[0]));
        }
        found.sort();
        assert_eq!(found, ["-1 2", "30 1", "40 2", "50 255"]);
        results.push(report);
    }
    assert_eq!(results[0], results[1]);
}

#[test]
fn one_file_for_each_individual_gives_what_one_for_all_gives() {
    let genotype = |person: usize, record: usize| ["0/0", "0/1", "1/1", "./."][(person * 5 + record * 3) % 4];
    let sites = ["1 100 . A C", "1 200 . G T", "1 300 . A G", "2 50 . C T"];
    let file = |people: std::ops::Range<usize>| {
        let records: Vec<String> = sites
            .iter()
            .enumerate()
            .map(|(record, site)| {
                let genotypes: Vec<&str> = people.clone().map(|person| genotype(person, record)).collect();
                format!("{site} . . . GT {}", genotypes.join(" "))
            })
            .collect();
        let names: Vec<String> = people.map(|person| format!("p{person}")).collect();
        vcf(&names.join("\t"), &records.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let all = |files: Vec<(String, String)>, tuning: Tuning| {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let case = Case::new(&files);
        case.ingest_tuned(&format!("{HEAD}{VARIANTS}"), tuning, &mut |_| {}).unwrap();
        // Rows lie in the keyed order of ids, which is the same each time.
        rows(&case.open(), &[], &everything()).into_iter().map(|(_, row)| row).collect::<Vec<_>>()
    };
    let together = all(vec![("a.vcf".into(), file(0..40))], Tuning::default());
    for tuning in [Tuning::default(), Tuning { memory: 1, checkpoint: 0, ..Tuning::default() }] {
        let apart = (0..40).map(|person| (format!("{person}.vcf"), file(person..person + 1))).collect();
        assert_eq!(all(apart, tuning), together);
    }
}

#[test]
fn damaged_variant_files_are_refused_by_file_and_record() {
    let whole = vcf("A", &["1 100 . A C . . . GT 0/1", "1 200 . G T . . . GT 0/1"]);
    let bad = |text: &str, want: &[&str]| {
        let case = Case::new(&[("a.vcf", text)]);
        let error = case.ingest(&format!("{HEAD}{VARIANTS}")).unwrap_err();
        for want in want {
            assert!(error.to_string().contains(want), "{error} does not say {want}");
        }
        assert!(case.data().open_dir("cohort").unwrap().entries().unwrap().all(|entry| entry.unwrap().file_name() == "lock"));
    };
    bad(&whole.replace("200 . G", "x . G").replace("200\t", "x\t"), &["a.vcf, record 2"]);
    bad("hello", &["a.vcf", "neither VCF nor BCF"]);
    bad("\u{1f}", &["a.vcf", "neither VCF nor BCF"]);
    bad("##fileformat=VCFv4.2\nrubbish\n", &["a.vcf", "header"]);
    bad(&whole.replace("GT\t0/1", "GT\t0/z"), &["a.vcf, record 1"]);
    bad(&whole.replace("GT\t0/1", "GT\t0/1\t0/1"), &["a.vcf, record 1", "number of samples"]);
    bad(&vcf("A\tB", &["1 100 . A C . . . GT 0/1"]), &["a.vcf, record 1", "number of samples"]);
}

/// The same records as BCF.
fn bcf(vcf: &str) -> Vec<u8> {
    use noodles_vcf::variant::io::Write as _;
    let mut reader = noodles_vcf::io::Reader::new(vcf.as_bytes());
    let header = reader.read_header().unwrap();
    let mut writer = noodles_bcf::io::Writer::new(vec![]);
    writer.write_header(&header).unwrap();
    for record in reader.record_bufs(&header) {
        writer.write_variant_record(&header, &record.unwrap()).unwrap();
    }
    writer.try_finish().unwrap();
    writer.into_inner().into_inner()
}

#[test]
fn bcf_gives_what_vcf_gives_and_damage_anywhere_in_it_is_an_error_not_a_panic() {
    let text = vcf(
        "A\tB\tC",
        &["1 100 . A C . . . GT 0/0 0|1 1/1", "1 200 . G T . . . GT ./. 1 0/1", "1 300 . A G,C . . . GT 1/2 2/2 0/0"],
    );
    let text = text.replace("##contig=<ID=1>", "##FILTER=<ID=PASS,Description=\"p\">\n##contig=<ID=1>");
    let all = |files: &[(&str, &[u8])]| {
        let case = Case::new(&[]);
        files.iter().for_each(|(name, bytes)| std::fs::write(case.temp.path().join(name), bytes).unwrap());
        let config = format!("{HEAD}{VARIANTS}").replace("*.vcf", "a.*");
        case.ingest(&config).map(|_| {
            let mut found: Vec<Vec<u8>> = rows(&case.open(), &[], &everything()).into_iter().map(|(_, row)| row).collect();
            found.sort();
            found
        })
    };
    let whole = bcf(&text);
    let want = all(&[("a.vcf", text.as_bytes())]).unwrap();
    assert_eq!(all(&[("a.bcf", &whole)]).unwrap(), want);
    // Plain BCF, so that what is changed is a record's byte and not a checksum's.
    let mut plain = vec![];
    noodles_bgzf::io::Reader::new(whole.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(all(&[("a.bcf", &plain)]).unwrap(), want);
    let (mut refused, mut read) = (0, 0);
    let header = 9 + u32::from_le_bytes(plain[5..9].try_into().unwrap()) as usize;
    for at in (header..plain.len()).step_by(5) {
        for flip in [1, 0x80, 0xff] {
            let mut changed = plain.clone();
            changed[at] ^= flip;
            match all(&[("a.bcf", &changed)]) {
                Err(error) => {
                    assert!(error.to_string().contains("a.bcf"), "{error}");
                    refused += 1;
                }
                Ok(_) => read += 1,
            }
        }
        // The end of a record is a whole file; every other cut is not.
        match all(&[("a.bcf", &plain[..at])]) {
            Err(error) => assert!(error.to_string().contains("a.bcf"), "{error}"),
            Ok(rows) => assert_ne!(rows, want),
        }
    }
    assert!(refused > 20 && read > 20, "{refused} {read}");
    for length in (40..whole.len() - 28).step_by(29) {
        assert!(all(&[("a.bcf", &whole[..length])]).is_err(), "{length} of {} bytes", whole.len());
    }
}
