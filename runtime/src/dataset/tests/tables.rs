//! Tables: codes, duplicates, and what is wrong with a recipe.

use super::*;

#[test]
fn a_table_is_read_with_its_codes_and_what_is_dropped_is_told() {
    let table = "id,age,sex\nA,40,F\nB,,M\nC,200,X\nD,x, F \nD,x,F\n,1,F\n";
    let case = Case::new(&[("people.csv", table)]);
    let report = case.ingest(&format!("{HEAD}{TABLE}")).unwrap();
    assert_eq!(report.individuals, 4);
    let noted =
        |text: &str| report.notes.iter().filter(|(kind, _)| kind.contains(text)).map(|(_, note)| note.count).sum::<u64>();
    assert_eq!(noted("age: outside the dictionary's bounds"), 1);
    assert_eq!(noted("age: not a number"), 2);
    assert_eq!(noted("sex: a code"), 1);
    assert_eq!(noted("without an id"), 1);
    assert_eq!(noted("merged"), 1);
    assert!(report.to_string().contains("people.csv, line 4"), "{report}");
    let rows = rows(&case.open(), &["age", "sex"], &[]);
    let has = |values: &[Value]| rows.iter().any(|(found, _)| found == values);
    assert!(has(&[Value::Number(40.0), Value::Level(0)]));
    assert!(has(&[Value::Missing, Value::Level(1)]));
    assert!(has(&[Value::Missing, Value::Missing]));
    assert!(has(&[Value::Missing, Value::Level(0)]));
}

#[test]
fn bad_tables_and_recipes_are_refused_with_their_place() {
    let bad = |table: &str, config: &str, want: &str| {
        let case = Case::new(&[("people.csv", table)]);
        let error = case.ingest(config).unwrap_err().to_string();
        assert!(error.contains(want), "{error} does not say {want}");
        assert_eq!(list(&case.data()).unwrap(), [], "{want}");
    };
    let good = format!("{HEAD}{TABLE}");
    bad("id,age,sex\nA,1,F\nA,2,F\n", &good, "line 3: the same id as line 2");
    bad("id,age,sex\nA,1\n", &good, "line: 2");
    bad("who,age,sex\nA,1,F\n", &good, "no column `id`");
    bad("id,sex\nA,F\n", &good, "no column `age`");
    bad("id,age,sex\n", &good, "no individual");
    bad("", &good.replace("people.csv", "other.csv"), "other.csv");
    bad("", &good.replace("[map.sex]", "[map.gender]"), "`[map.gender]`");
    bad("", &good.replace("\"male\"", "\"man\""), "no level `man`");
    bad("", &good.replace("epsilon = 8.0", "epsilon = 800.0"), "epsilon");
    bad("", &good.replace("id = ", "ident = "), "ident");
    bad("", HEAD, "neither");
}
