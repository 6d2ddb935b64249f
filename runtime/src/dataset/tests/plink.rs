//! PLINK files against the same people's BCF.

use super::*;

/// 295 people x 12,972 variants, once as PLINK files and once as BCF, are the same dataset; also where either allele is the reference's.
#[test]
fn plink_files_are_read_to_what_the_bcf_of_the_same_people_is() {
    let Some(data) = real_data() else { return };
    let bim = std::fs::read_to_string(data.join("formats/1kg-uk_odd-chroms_grch38.bim")).unwrap();
    let mut catalogue = "#catalogue\tuk\n#build\tGRCh38\ncontig\tposition\tref\talt\n".to_owned();
    let mut sites: Vec<(&str, u64, &str, &str)> = bim
        .lines()
        .map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            (columns[0], columns[3].parse().unwrap(), columns[5], columns[4])
        })
        .collect();
    sites.sort_unstable();
    for (at, (contig, position, reference, alternate)) in sites.iter().enumerate() {
        // Every tenth the other way round than in the files.
        let (a, b) = if at % 10 == 3 { (alternate, reference) } else { (reference, alternate) };
        catalogue += &format!("{contig}\t{position}\t{a}\t{b}\n");
    }
    let mut contigs: Vec<&str> = sites.iter().map(|site| site.0).collect();
    contigs.dedup();
    let slice = |contig: &&str| VariantSlice { catalogue: "uk".into(), contig: (*contig).into(), start: 0, end: 1 << 40 };
    let slices: Vec<VariantSlice> = contigs.iter().map(slice).collect();
    let dictionary = "name = \"d\"\n[[column]]\nname = \"x\"\ntype = \"flag\"\n";
    let read = |folder: &str, file: &str| {
        let config = format!("{HEAD}[variants]\nfiles = [\"{file}\"]\nbuild = \"GRCh38\"\ncatalogue = [\"uk.tsv\"]\n");
        let documents = [("dictionary.toml", dictionary), ("uk.tsv", catalogue.as_str())];
        let (temp, report) = ingest_real(&data.join(folder), &documents, &config);
        assert_eq!((report.individuals, report.records, report.variants_matched), (295, 12_972, 12_972), "{file}: {report}");
        let folder = Dir::open_ambient_dir(temp.path().join("data"), ambient_authority()).unwrap();
        let dataset = Dataset::open(&folder.into(), &"cohort".parse().unwrap(), &key()).unwrap();
        rows(&dataset, &[], &slices).into_iter().map(|(_, dosages)| dosages).collect::<Vec<_>>()
    };
    let bed = read("formats", "1kg-uk_odd-chroms_grch38.bed");
    assert!(bed == read("1kg-genomewide", "1kg-uk.odd-chroms.grch38.bcf"));
    assert!(bed.iter().flatten().any(|dosage| *dosage == 2) && bed.iter().flatten().any(|dosage| *dosage == 1));
}

/// The files beside a `.bed` belong to it: they must be there, and another one is another dataset.
#[test]
fn the_files_beside_a_bed_belong_to_it() {
    let case = Case::new(&[]);
    let bytes = [0x6c, 0x1b, 0x01, 0b1110, 0b10];
    std::fs::write(case.temp.path().join("a.bed"), bytes).unwrap();
    let config = format!("{HEAD}{}", VARIANTS.replace("*.vcf", "a.bed"));
    let error = case.ingest(&config).unwrap_err().to_string();
    assert!(error.contains("a.bim"), "{error}");
    case.put("a.bim", "1 . 0 100 G A\n1 . 0 200 C T\n");
    case.put("a.fam", "f p 0 0 0 0\nf q 0 0 0 0\n");
    assert!(case.ingest(&config).unwrap().changed);
    assert!(!case.ingest(&config).unwrap().changed);
    case.put("a.fam", "f p 0 0 0 0\nf r 0 0 0 0\n");
    assert!(case.ingest(&config).unwrap().changed);
    case.put("a.fam", "f p 0 0 0 0\nf p 0 0 0 0\n");
    let error = case.ingest(&config).unwrap_err();
    assert!(error.code() == "dataset-config" && error.to_string().contains("a.fam, line 2"), "{error}");
}
