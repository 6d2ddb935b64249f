//! Each kind of words: the longest that is one, the first that is none; and nothing that comes through the door moves anything.

use super::*;

/// Characters that move, turn, hide or overprint what stands beside them.
const HOSTILE: [char; 24] = [
    '\0',
    '\u{7}',
    '\u{8}',
    '\r',
    '\u{b}',
    '\u{1b}',
    '\u{7f}',
    '\u{85}',
    '\u{9b}',
    '\u{ad}',
    '\u{34f}',
    '\u{61c}',
    '\u{115f}',
    '\u{200b}',
    '\u{200f}',
    '\u{2028}',
    '\u{202e}',
    '\u{2066}',
    '\u{2800}',
    '\u{3164}',
    '\u{e000}',
    '\u{fe0f}',
    '\u{feff}',
    '\u{e0041}',
];

#[test]
fn each_kind_has_its_longest() {
    assert!("a".repeat(64).parse::<Code>().is_ok());
    for bad in ["", "A", "a b", "a_b", "\u{1b}[2J", &"a".repeat(65)] {
        assert!(bad.parse::<Code>().is_err(), "{bad:?}");
    }
    assert!("é".repeat(1_000).parse::<Sentence>().is_ok() && "".parse::<Sentence>().is_ok());
    assert!("é".repeat(1_001).parse::<Sentence>().is_err() && "a\nb".parse::<Sentence>().is_err());
    assert!(" ".parse::<Title>().is_err() && "a\n b".parse::<Paragraphs>().is_ok() && "a\tb".parse::<Paragraphs>().is_err());
    assert!("x".repeat(5_001).parse::<Paragraphs>().is_err() && "x".repeat(5_000).parse::<Paragraphs>().is_ok());
    assert!("NL".parse::<Country>().is_ok());
    for bad in ["", "nl", "NLD", "xx", "N\n"] {
        assert!(bad.parse::<Country>().is_err(), "{bad:?}");
    }
    assert!(
        "vestibule/log/0a".parse::<Origin>().is_ok() && "a b".parse::<Origin>().is_err() && "a+b".parse::<Origin>().is_err()
    );
    assert!("o".repeat(200).parse::<Origin>().is_ok() && "o".repeat(201).parse::<Origin>().is_err());
}

#[test]
fn what_moves_or_hides_is_refused_by_the_types_and_an_escape_behind_the_door() {
    for c in HOSTILE {
        let text = format!("a{c}b");
        assert!(text.parse::<Title>().is_err() && text.parse::<Paragraphs>().is_err(), "{c:?}");
        let escape = if c == '\r' { "\\r".to_owned() } else { c.escape_unicode().to_string() };
        assert_eq!(line(&text), format!("a{escape}b"));
        assert_eq!(lines(&text), format!("a{escape}b"));
        let document = serde_json::to_string(&text).unwrap();
        assert!(json(&document).chars().all(|c| !HOSTILE.contains(&c)));
        assert_eq!(serde_json::from_str::<String>(&json(&document)).unwrap(), text);
    }
    assert_eq!((line("a\n\tb"), lines("a\n\tb")), ("a\\n\\tb".into(), "a\n\tb".into()));
    let piled = format!("a{}", "\u{301}".repeat(5));
    assert!(piled.parse::<Title>().is_err() && "a\u{301}".parse::<Title>().is_ok());
    assert_eq!(lines(&piled), format!("a{}\\u{{301}}", "\u{301}".repeat(4)));
    assert_eq!(Sentence::cut(&"\u{1b}".repeat(999)).chars().count(), 1_000);
}

#[test]
fn the_words_of_many_languages_are_words() {
    let many = [
        "Ärzte für Lübeck",
        "cœur à l’écoute",
        "東京　大学",
        "исследование",
        "בריאות",
        "صحة",
        "Việt Nam",
        "TNFα ≥ 5 µg",
        "ß-blocker, 95 %",
    ];
    for text in many {
        assert!(text.parse::<Title>().is_ok(), "{text}");
        assert_eq!(line(text), text);
    }
}

#[test]
fn letters_that_pass_for_others_are_shown() {
    // The first letter is Cyrillic, the last but one Greek.
    assert_eq!(line("\u{430}ge, ep\u{3bf}ch"), "\\u{430}ge, ep\\u{3bf}ch");
    assert!(is_mixed("p\u{430}ris") && !is_mixed("paris") && !is_mixed("\u{43f}\u{430}\u{440}\u{438}\u{436}"));
}

#[test]
fn names_that_people_take_for_each_other() {
    let like = |one: &str, other: &str| alike(&one.parse().unwrap(), &other.parse().unwrap());
    for (one, other) in [
        ("leiden", "Leiden"),
        ("leiden", "1eiden"),
        ("leiden", "Ieiden"),
        ("site-1", "site-l"),
        ("a-b", "a_b"),
        ("o-1", "0.1"),
        ("rnorth", "morth"),
    ] {
        assert!(like(one, other) && like(other, one), "{one} {other}");
    }
    for (one, other) in [("leiden", "leuven"), ("site-1", "site-2"), ("site-1", "site-11"), ("ali", "all"), ("ab", "a-b")] {
        assert!(!like(one, other), "{one} {other}");
    }
}
