//! The shipped rules, asked about every condition that they speak of; and what may not pass for rules.

use std::collections::{BTreeMap, BTreeSet};

use vestibule_protocol::charter::Charter;
use vestibule_protocol::dictionary::Dictionary;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::dsse;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::message::Offer;
use vestibule_protocol::round::{Partitioning, Plan};
use vestibule_protocol::trust::{Person, Role};

use super::facts::{Facts, Outgoing};
use super::rules::{Decision, Document, Officers, Outcome, Rules, SHIPPED};
use super::signed::{self, POLICY_TYPE};
use crate::admission::tests::{NOW, manifest, request, researcher};
use crate::admission::{self, Verified};
use crate::airlock::Counts;
use crate::charter::tests::{accepted, charter};
use crate::charter::{Accepted, Terms};
use crate::dataset::{Conditions, DatasetInfo};

/// Everything that a decision hangs on; each case changes a little of it.
struct Case {
    charter: Charter,
    info: DatasetInfo,
    person: Person,
    not_for_profit: bool,
    plan: Plan,
    variants: usize,
    reviewed: bool,
    epsilon_micro: u64,
}

fn case() -> Case {
    let text = "name = \"d\"\n[[column]]\nname = \"x\"\ntype = \"flag\"\n[[column]]\nname = \"hiv\"\ntype = \"flag\"\nsensitive = true\n";
    let info =
        DatasetInfo { dictionary: Dictionary::parse(text).unwrap(), ..DatasetInfo::for_tests("cohort", Digest::of(b"d")) };
    Case {
        charter: charter(),
        info,
        person: Person {
            name: "ada".parse().unwrap(),
            organisation: "lab".parse().unwrap(),
            country: "NL".parse().unwrap(),
            roles: BTreeSet::from([Role::Researcher]),
            key: researcher().public(),
            former: BTreeSet::new(),
        },
        not_for_profit: true,
        plan: Plan { columns: vec!["x".into()], variants: vec![], partitioning: Partitioning::Each, max_rounds: 1 },
        variants: 0,
        reviewed: false,
        epsilon_micro: 1_000_000,
    }
}

impl Case {
    fn verified(&self) -> Verified {
        let charter: Accepted = accepted(&self.charter, Terms::default());
        let mut terms = manifest(1);
        (terms.charter, terms.epsilon_micro) = (charter.signed().digest(), self.epsilon_micro);
        let offer = Offer { manifest: terms.sign(&researcher()).unwrap(), round: 0, request: request() };
        let known = [("ada".parse().unwrap(), researcher().public())];
        admission::verify(offer, &known, &[charter], &"here".parse().unwrap(), NOW).unwrap()
    }

    fn ask<T>(&self, ask: impl FnOnce(Facts<'_>) -> T) -> T {
        let Self { person, not_for_profit, info, plan, variants, reviewed, .. } = self;
        let (not_for_profit, variants, reviewed) = (*not_for_profit, *variants, *reviewed);
        let verified = self.verified();
        ask(Facts {
            verified: &verified,
            researcher: person,
            not_for_profit,
            dataset: info,
            plan,
            variants,
            reviewed,
            now: NOW,
        })
    }
}

fn shipped() -> Rules {
    let diseases = BTreeMap::from([("MONDO:0005148".to_owned(), BTreeSet::from(["MONDO:0005015".to_owned()]))]);
    Rules::of(Document { diseases, ..Document::shipped("here".parse().unwrap()) }).unwrap()
}

fn decided(change: &dyn Fn(&mut Case)) -> Decision {
    let mut case = case();
    change(&mut case);
    case.ask(|facts| shipped().job(&facts.question()))
}

/// The outcome, and that the rule took part.
fn check(what: &str, want: Outcome, rule: &str, change: &dyn Fn(&mut Case)) {
    let found = decided(change);
    assert_eq!((found.outcome, &found.errors), (want, &vec![]), "{what}: {found:?}");
    let named = if rule.is_empty() { found.rules.is_empty() } else { found.rules.iter().any(|of| of.id == rule) };
    assert!(named, "{what}: {found:?} without {rule}");
    assert!(rule.is_empty() || found.why().contains(rule));
}

fn codes(case: &mut Case, duo: &[&str], conditions: Conditions) {
    case.info.duo = duo.iter().map(|code| (*code).to_owned()).collect();
    case.info.conditions = conditions;
}

#[test]
fn permissions_cover_purposes() {
    use Outcome::{Admit, Hold, Refuse};
    let of = |duo: &'static str, research: &'static str| {
        move |case: &mut Case| {
            codes(case, &[duo], Conditions::default());
            case.charter.purpose.research = research.into();
        }
    };
    check("GRU", Admit, "permit-consented-use", &|_| {});
    check("GRU", Admit, "admit-routine-jobs", &|_| {});
    check("no restriction", Admit, "permit-consented-use", &of("DUO:0000004", "DUO:0000031"));
    check("HMB, biomedical", Admit, "permit-consented-use", &of("DUO:0000006", "DUO:0000037"));
    check("HMB, a kind of biomedical", Admit, "permit-consented-use", &of("DUO:0000006", "DUO:0000038"));
    check("HMB, methods", Refuse, "", &of("DUO:0000006", "DUO:0000031"));
    check("POA, ancestry", Admit, "permit-consented-use", &of("DUO:0000011", "DUO:0000033"));
    check("POA, biomedical", Refuse, "", &of("DUO:0000011", "DUO:0000037"));
    check("nothing declared", Hold, "hold-undeclared-consent", &|case| codes(case, &[], Conditions::default()));
    let diabetes = |disease: Option<&'static str>| {
        move |case: &mut Case| {
            let diseases = BTreeSet::from(["MONDO:0005015".to_owned()]);
            codes(case, &["DUO:0000007"], Conditions { diseases, ..Conditions::default() });
            case.charter.purpose.disease = disease.map(str::to_owned);
        }
    };
    check("DS, the disease", Admit, "permit-consented-use", &diabetes(Some("MONDO:0005015")));
    check("DS, a kind of it", Admit, "permit-consented-use", &diabetes(Some("MONDO:0005148")));
    check("DS, another", Refuse, "", &diabetes(Some("MONDO:0004992")));
    check("DS, none", Refuse, "", &diabetes(None));
}

#[test]
fn every_modifier_is_kept_and_no_other_is_a_yes() {
    use Outcome::{Admit, Hold, Refuse};
    let general = "DUO:0000042";
    let with =
        |code: &'static str, conditions: Conditions| move |case: &mut Case| codes(case, &[general, code], conditions.clone());
    let none = Conditions::default;
    for code in ["DUO:0000046", "DUO:0000018"] {
        check("commercial", Refuse, "forbid-commercial-use", &|case| {
            with(code, none())(case);
            case.charter.purpose.commercial = true;
        });
        check("not commercial", Admit, "admit-routine-jobs", &with(code, none()));
    }
    for code in ["DUO:0000045", "DUO:0000018"] {
        check("for profit", Refuse, "forbid-organisations-for-profit", &|case| {
            with(code, none())(case);
            case.not_for_profit = false;
        });
    }
    check("no ethics", Refuse, "forbid-without-ethics", &with("DUO:0000021", none()));
    check("ethics", Admit, "admit-routine-jobs", &|case| {
        with("DUO:0000021", none())(case);
        case.charter.ethics = Some("P26.001".parse().unwrap());
    });
    check("methods", Refuse, "forbid-methods-only", &|case| {
        with("DUO:0000015", none())(case);
        case.charter.purpose.methods_only = true;
    });
    check("ancestry", Refuse, "forbid-ancestry", &|case| {
        with("DUO:0000044", none())(case);
        case.charter.purpose.research = "DUO:0000032".into();
    });
    let europe = Conditions { countries: BTreeSet::from(["EEA".to_owned()]), ..none() };
    check("a country of a region of the region", Admit, "admit-routine-jobs", &with("DUO:0000022", europe.clone()));
    check("another country", Refuse, "forbid-other-countries", &|case| {
        with("DUO:0000022", europe.clone())(case);
        case.person.country = "JP".parse().unwrap();
    });
    let named = |name: &str| Conditions { projects: BTreeSet::from([name.to_owned()]), ..none() };
    check("the project", Admit, "admit-routine-jobs", &with("DUO:0000027", named("lipids")));
    check("another project", Refuse, "forbid-other-projects", &with("DUO:0000027", named("hearts")));
    let until = |day: &str| Conditions { use_until: Some(day.to_owned()), ..none() };
    check("in its time", Admit, "admit-routine-jobs", &with("DUO:0000025", until("2100-01-01")));
    check("after its time", Refuse, "forbid-after-its-time", &with("DUO:0000025", until("2020-01-01")));
    let care = |case: &mut Case| case.charter.purpose.clinical_care = true;
    check("care", Refuse, "forbid-clinical-care", &care);
    check("care that was consented to", Admit, "admit-routine-jobs", &|case| {
        with("DUO:0000043", none())(case);
        care(case);
    });
    // Those that exist and need a person, and some that do not exist.
    for code in
        ["DUO:0000012", "DUO:0000016", "DUO:0000019", "DUO:0000020", "DUO:0000024", "DUO:0000026", "DUO:0000028", "DUO:0000029"]
    {
        check("a person's", Hold, "hold-conditions-for-people", &with(code, none()));
    }
    for code in ["DUO:0000099", "DUO:9999999"] {
        check("unknown", Hold, "hold-conditions-for-people", &with(code, none()));
    }
    // Not for profit and non-commercial are each a kind of NPUNCU in the ontology; matched exactly, they are not taken for it.
    check("exact", Admit, "admit-routine-jobs", &|case| {
        with("DUO:0000046", none())(case);
        case.not_for_profit = false;
    });
}

#[test]
fn what_is_not_routine_waits_for_a_person() {
    use Outcome::{Admit, Hold};
    let sensitive = |case: &mut Case| case.plan.columns.push("hiv".into());
    check("sensitive", Hold, "hold-sensitive-columns", &sensitive);
    check("sensitive, reviewed", Admit, "admit-routine-jobs", &|case| {
        sensitive(case);
        case.reviewed = true;
    });
    check("small", Hold, "hold-small-datasets", &|case| case.info.approximate_size = 99);
    check("precise", Hold, "hold-precise-genomes", &|case| (case.variants, case.epsilon_micro) = (100_001, 2_000_001));
    check("less precise", Admit, "admit-routine-jobs", &|case| (case.variants, case.epsilon_micro) = (100_001, 2_000_000));
    let out = |out: Outgoing, variants: usize| {
        let found = Case { variants, ..case() }.ask(|facts| shipped().release(&facts.release(out)));
        assert_eq!(found.errors, Vec::<String>::new());
        (found.outcome, found.rules.first().unwrap().id.clone())
    };
    let (usual, none) = (Outgoing::default(), Counts::default());
    let of = |counts: Counts| Outgoing { counts, ..usual };
    assert_eq!(out(of(Counts { entries: 9, faint: 9, ..none }), 9), (Admit, "release-routine-results".into()));
    assert_eq!(out(Outgoing { review: true, ..usual }, 0), (Hold, "hold-reviewed-projects".into()));
    assert_eq!(out(of(Counts { chosen: 1, ..none }), 9), (Hold, "hold-chosen-variants".into()));
    assert_eq!(out(of(Counts { chosen: 1, ..none }), 0).0, Admit);
    assert_eq!(out(Outgoing { similar: 201, ..usual }, 0), (Hold, "hold-many-alike".into()));
    assert_eq!(out(of(Counts { rare: 1, ..none }), 9), (Hold, "hold-rare-alleles".into()));
    assert_eq!(out(Outgoing { near: 100, ..usual }, 9).0, Admit);
    assert_eq!(out(Outgoing { near: 101, ..usual }, 9), (Hold, "hold-near-duplicates".into()));
}

/// Attack 13 of the threat model: a `forbid` that errs is skipped by Cedar, so that the `permit` wins; here it never is a yes.
#[test]
fn an_error_in_the_evaluation_is_never_a_yes() {
    let rules = "@id(\"all\") @why(\"all\") permit(principal, action, resource);\n\
                 @id(\"none\") @why(\"none\") forbid(principal, action == Site::Action::\"run\", resource)\n\
                 when { context.job.epsilon_micro * 9223372036854775807 > 5 };";
    let rules = Rules::of(Document { rules: rules.into(), ..Document::shipped("here".parse().unwrap()) }).unwrap();
    let found = case().ask(|facts| rules.job(&facts.question()));
    assert_eq!((found.outcome, found.errors.len()), (Outcome::Refuse, 1), "{found:?}");
    assert!(found.why().contains("could not be evaluated") && !found.why().contains("9223"), "{}", found.why());
    // Of a release, not even the site's log is told which number it was.
    let rules = "@id(\"none\") @why(\"none\") forbid(principal, action == Site::Action::\"release-at-once\", resource)\n\
                 when { context.out.faint * 9223372036854775807 > 5 };";
    let rules = Rules::of(Document { rules: rules.into(), ..Document::shipped("here".parse().unwrap()) }).unwrap();
    let found = case().ask(|facts| {
        rules.release(&facts.release(Outgoing { counts: Counts { faint: 4_711, ..Counts::default() }, ..Outgoing::default() }))
    });
    assert_eq!((found.outcome, found.errors), (Outcome::Hold, vec!["rule `none`".to_owned()]));
    // Facts that do not fit the schema: a country that is no entity.
    let mut question = case().ask(|facts| facts.question());
    question.entities[0]["attrs"]["country"] = "NL".into();
    assert_eq!(shipped().job(&question).outcome, Outcome::Refuse);
    let mut question = case().ask(|facts| facts.question());
    question.context["job"].as_object_mut().unwrap().remove("reviewed");
    assert_eq!(shipped().job(&question).outcome, Outcome::Refuse);
    assert_eq!(shipped().release(&question).outcome, Outcome::Hold);
}

#[test]
fn what_does_not_validate_is_refused_with_its_place() {
    let refused = |rules: &str, want: &str| {
        let error = Rules::of(Document { rules: rules.into(), ..Document::shipped("here".parse().unwrap()) }).unwrap_err();
        assert_eq!(error.code(), "policy-rules");
        assert!(error.to_string().contains(want), "{error} does not name {want}");
    };
    refused("@id(\"a\") @why(\"b\")\npermit(principal, action, resource)\nwhen { context.job.nothing };", "nothing");
    refused("@id(\"a\") @why(\"b\")\npermit(principal, action\n);", "line 2");
    refused("@id(\"a\") permit(principal, action, resource);", "@why");
    refused("@why(\"a\") permit(principal, action, resource);", "rule 1");
    let twice = "@id(\"a\") @why(\"a\") permit(principal, action, resource);";
    refused(&format!("{twice}\n{twice}"), "rule 2");
    refused(&SHIPPED.replace("DUO:0000046\"", "DUO:0000046\" + 1"), "forbid-commercial-use");
    refused(&SHIPPED.replace("context.out.similar > 200", "context.out.similar > \"200\""), "hold-many-alike");
    // An optional attribute that is read without looking whether it is there.
    refused(&SHIPPED.replace("context.job.purpose has disease &&", "true &&"), "disease");
    refused("@id(\"a\") @why(\"a\") permit(principal == ?principal, action, resource);", "placeholder");
}

#[test]
fn two_officers_sign_and_those_before_agree() {
    let key = |seed: u8| SecretKey::from_seed([seed; 32]).unwrap();
    let keys = |seeds: &[u8]| seeds.iter().map(|seed| key(*seed).public()).collect::<Vec<_>>();
    let document = |version: u64, officers: &[u8]| Document {
        version,
        officers: Officers { threshold: 2, keys: keys(officers) },
        ..Document::shipped("here".parse().unwrap())
    };
    let sign = |document: &Document, seeds: &[u8]| {
        let first = signed::sign(document, &key(seeds[0])).unwrap();
        seeds[1..].iter().fold(first, |envelope, seed| dsse::add_signature(&envelope, POLICY_TYPE, &key(*seed)).unwrap())
    };
    let code = |now: &Rules, envelope: &[u8]| signed::next(now, envelope).map(|_| ()).map_err(|error| error.code());
    let start = Rules::shipped("here".parse().unwrap());
    let first = document(1, &[1, 2, 3]);
    assert_eq!(code(&start, &sign(&first, &[1])), Err("policy-signatures"));
    assert_eq!(code(&start, &sign(&first, &[1, 1])), Err("policy-signatures"));
    assert_eq!(code(&start, &sign(&first, &[1, 9])), Err("policy-signatures"));
    let one = signed::next(&start, &sign(&first, &[1, 3])).unwrap();
    assert_eq!(code(&one, &sign(&first, &[1, 2])), Err("policy-old"));
    let second = document(2, &[4, 5]);
    assert_eq!(code(&one, &sign(&second, &[4, 5])), Err("policy-signatures"));
    assert_eq!(code(&one, &sign(&second, &[4, 5, 1, 2])), Ok(()));
    let elsewhere = Document { site: "there".parse().unwrap(), ..document(2, &[1, 2]) };
    assert_eq!(code(&one, &sign(&elsewhere, &[1, 2])), Err("policy-other-site"));
    for officers in [&[1][..], &[1, 1], &[]] {
        let error = signed::sign(&document(2, officers), &key(1)).unwrap_err();
        assert_eq!(error.code(), "policy-officers");
    }
    let alone = Document { officers: Officers { threshold: 1, keys: keys(&[1, 2]) }, ..document(2, &[1, 2]) };
    assert_eq!(signed::sign(&alone, &key(1)).unwrap_err().code(), "policy-officers");
    let broken = Document { rules: "permit(principal, action, resource);".into(), ..document(2, &[1, 2]) };
    assert_eq!(signed::sign(&broken, &key(1)).unwrap_err().code(), "policy-rules");
}
