//! gVCF: one file for each individual, in which stretches that are like the reference are blocks.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::*;

/// What each person's file says of a site, by its text alone: how many copies of `alternate`, where that is known.
fn copies(text: &str, position: u64, reference: &str, alternate: &str) -> Option<u8> {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let start: u64 = cells[1].parse().unwrap();
        let sample: Vec<&str> = cells[9].split(':').collect();
        if cells[4] == "<NON_REF>" {
            let end: u64 = cells[7].strip_prefix("END=").unwrap().parse().unwrap();
            if (start..=end).contains(&position) {
                let place = cells[8].split(':').position(|key| key == "GQ").unwrap();
                return (sample[place].parse::<u32>().unwrap() >= 20 && sample[0] == "0/0").then_some(0);
            }
        } else if start == position && cells[3] == reference {
            let Some(allele) = cells[4].split(',').position(|alt| alt == alternate) else { continue };
            let allele = (allele + 1).to_string();
            let alleles: Vec<&str> = sample[0].split(['/', '|']).collect();
            return (!alleles.contains(&".")).then(|| alleles.iter().filter(|found| **found == allele).count() as u8);
        }
    }
    None
}

#[test]
fn eight_real_gvcfs_are_read_as_their_texts_say() {
    let Some(data) = real_data() else { return };
    let folder = data.join("call-sets/gvcf");
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "gz") {
            let mut text = String::new();
            noodles_bgzf::io::Reader::new(std::fs::File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
            let name = text.lines().find(|line| line.starts_with("#CHROM")).unwrap().split('\t').nth(9).unwrap().to_owned();
            files.insert(name, text);
        }
    }
    assert_eq!(files.len(), 8);
    // Every variant that anybody has.
    let mut sites = BTreeMap::new();
    for line in files.values().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        for alternate in cells[4].split(',').filter(|alt| alt.bytes().all(|base| b"ACGT".contains(&base))) {
            sites.insert((cells[1].parse::<u64>().unwrap(), cells[3].to_owned(), alternate.to_owned()), ());
        }
    }
    assert!(sites.len() > 40, "{}", sites.len());
    let mut catalogue = "#catalogue\tpanel\n#build\tGRCh38\ncontig\tposition\tref\talt\n".to_owned();
    for (position, reference, alternate) in sites.keys() {
        catalogue += &format!("22\t{position}\t{reference}\t{alternate}\n");
    }
    let config = format!(
        "{HEAD}[[table]]\nfile = \"people.csv\"\nid = \"id\"\n[map.age]\ncolumn = \"age\"\n\
         [variants]\nfiles = [\"*.g.vcf.gz\"]\nbuild = \"GRCh38\"\ncatalogue = [\"panel.tsv\"]\n"
    );
    // Ages say whose row is whose.
    let people: String = files.keys().enumerate().map(|(at, name)| format!("{name},{at}\n")).collect();
    let people = format!("id,age\n{people}");
    let documents = [("dictionary.toml", DICTIONARY), ("panel.tsv", &catalogue), ("people.csv", &people)];
    let (temp, report) = ingest_real(&folder, &documents, &config);
    assert_eq!((report.individuals, report.variants_matched), (8, sites.len() as u64), "{report}");
    assert!(report.to_string().contains("of too low a quality"), "{report}");
    let opened = Dir::open_ambient_dir(temp.path().join("data"), ambient_authority()).unwrap();
    let dataset = Dataset::open(&opened.into(), &"cohort".parse().unwrap(), &key()).unwrap();
    let slice = VariantSlice { catalogue: "panel".into(), contig: "22".into(), start: 0, end: 1 << 40 };
    let (mut none, mut some) = (0, 0);
    for (values, dosages) in rows(&dataset, &["age"], &[slice]) {
        let Value::Number(at) = values[0] else { panic!("an age") };
        let text = files.values().nth(at as usize).unwrap();
        for (dosage, (position, reference, alternate)) in dosages.iter().zip(sites.keys()) {
            let want = copies(text, *position, reference, alternate);
            assert_eq!(*dosage, want.unwrap_or(255), "person {at}, {position} {reference} {alternate}");
            none += usize::from(want == Some(0));
            some += usize::from(want.is_some_and(|copies| copies > 0));
        }
    }
    assert!(none > 20 && some > 40, "{none} without, {some} with copies");
}

#[test]
fn blocks_and_records_without_alt_say_that_there_are_no_copies() {
    let head =
        "##fileformat=VCFv4.2\n##contig=<ID=1>\n##contig=<ID=2>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tA\tB\n";
    let record = |text: &str| text.replace(' ', "\t") + "\n";
    let read = |records: &[&str], quality: &str| {
        let text = records.iter().fold(head.to_owned(), |text, line| text + &record(line));
        let case = Case::new(&[("a.vcf", &text), ("people.csv", "id,age\nA,1\nB,2\n")]);
        let table = "[[table]]\nfile = \"people.csv\"\nid = \"id\"\n[map.age]\ncolumn = \"age\"\n";
        case.ingest(&format!("{HEAD}{table}{VARIANTS}{quality}")).unwrap();
        let mut found = rows(&case.open(), &["age"], &everything());
        found.sort_by_key(|(values, _)| if let Value::Number(age) = values[0] { age as u64 } else { 0 });
        found.into_iter().map(|(_, dosages)| dosages).collect::<Vec<_>>()
    };
    let missing = read(&[], "").remove(0).len();
    let first = |records: &[&str], quality: &str| read(records, quality).into_iter().map(|row| row[0]).collect::<Vec<_>>();
    assert!(missing > 1);
    // 1:100 A>C is the catalogue's first.
    for (line, want) in [
        ("1 50 . T <NON_REF> . . END=150 GT:GQ 0/0:30 0/0:10", [0, 255]),
        ("1 50 . T <*> . . END=100 GT:GQ 0|0:20 ./.:99", [0, 255]),
        ("1 50 . T <NON_REF> . . END=99 GT:GQ 0/0:30 0/0:30", [255, 255]),
        ("1 100 . A <NON_REF> . . END=100 GT 0/0 0/1", [0, 255]),
        ("1 100 . C <NON_REF> . . END=150 GT 0/0 0/0", [255, 255]),
        ("1 100 . A . . . . GT:GQ 0/0:. 0/0:5", [0, 255]),
        ("1 100 . A C,<NON_REF> . . . GT:GQ 0/1:3 1/1:99", [1, 2]),
    ] {
        assert_eq!(first(&[line], ""), want, "{line}");
    }
    assert_eq!(first(&["1 50 . T <NON_REF> . . END=150 GT:GQ 0/0:30 0/0:10"], "reference_quality = 5\n"), [0, 0]);
    // The first that says something of a variant holds.
    let both = ["1 50 . T <NON_REF> . . END=120 GT:GQ 0/0:30 0/0:30", "1 100 . A C . . . GT 1/1 1/1"];
    assert_eq!(first(&both, ""), [0, 0]);
}
