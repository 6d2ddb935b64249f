//! A round reads the columns and blocks that its plan names, and nothing else.

use super::*;

#[test]
fn only_what_a_plan_names_is_read() {
    // 500 people, two number columns, 20,000 variants: five blocks.
    let (people, variants) = (500, 20_000);
    let mut state = 1_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    let mut bed = vec![0x6c, 0x1b, 0x01];
    // Nothing that compresses, so that sizes are those of the data. (What lies beyond the last person does not matter.)
    bed.extend((0..variants * people / 4).map(|_| byte()));
    let mut bim = String::new();
    let mut catalogue = "#catalogue\tpanel\n#build\tGRCh37\ncontig\tposition\tref\talt\n".to_owned();
    for position in 1..=variants {
        bim += &format!("1 . 0 {position} G A\n");
        catalogue += &format!("1\t{position}\tA\tG\n");
    }
    let fam: String = (0..people).map(|person| format!("0 p{person} 0 0 0 0\n")).collect();
    let table: String = (0..people).map(|person| format!("p{person},{}.{person},1.{person}\n", person % 90)).collect();
    let case = Case::new(&[
        ("panel.tsv", &catalogue),
        ("a.bim", &bim),
        ("a.fam", &fam),
        ("people.csv", &format!("id,age,ldl\n{table}")),
    ]);
    std::fs::write(case.temp.path().join("a.bed"), bed).unwrap();
    let tables = "[[table]]\nfile = \"people.csv\"\nid = \"id\"\n[map.age]\ncolumn = \"age\"\n[map.ldl]\ncolumn = \"ldl\"\n";
    case.ingest(&format!("{HEAD}{tables}{}", VARIANTS.replace("*.vcf", "a.bed"))).unwrap();

    let slice = |start, end| VariantSlice { catalogue: "panel".into(), contig: "1".into(), start, end };
    let read = |columns: &[&str], slices: &[VariantSlice]| {
        let dataset = case.open();
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let (selection, footer) = (dataset.select(&columns, slices).unwrap(), dataset.bytes_read());
        (0..dataset.row_groups()).for_each(|group| drop(dataset.read(&selection, group).unwrap()));
        dataset.bytes_read() - footer
    };
    let block = 500 * 1_024_u64;
    // Five blocks, the last of them not full: a random byte each, and nothing but padding beyond.
    let all = read(&["age", "ldl"], &[slice(1, 20_001)]);
    assert!((4 * block..5 * block + 100_000).contains(&all), "{all}");
    let close_to = |found: u64, blocks: u64| (blocks * block..blocks * block + 20_000).contains(&found);
    let (one, two) = (read(&[], &[slice(1, 4_000)]), read(&[], &[slice(4_000, 4_200)]));
    assert!(close_to(one, 1) && close_to(two, 2), "{one} {two}");
    let (age, nothing) = (read(&["age"], &[]), read(&[], &[]));
    assert!((500..20_000).contains(&age) && nothing == 0, "{age} {nothing}");
}
