//! Golden bytes of every message, round trips, and what perturbed bytes do.

use super::*;
use crate::digest::hex;
use crate::frame::{FrameError, HEADER_BYTES, Header, decode, encode};
use crate::round::{Bound, Statistic};
use crate::scores::{GenotypeSums, Source};

fn golden<M: Message + PartialEq + std::fmt::Debug>(message: &M, want: &str) {
    let frame = encode(message).unwrap();
    assert_eq!(hex(&frame), want, "{message:?}");
    let (head, payload) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
    let length = Header::parse(*head).expect::<M>().unwrap();
    assert_eq!(length, payload.len());
    assert_eq!(&decode::<M>(payload).unwrap(), message);
    // A byte too many or too few is no message, whatever it is.
    assert_eq!(decode::<M>(&[payload, &[0]].concat()), Err(FrameError::Payload { kind: M::KIND }));
    if let Some((_, short)) = payload.split_last() {
        assert!(decode::<M>(short).is_err());
    }
    // Changed bytes decode to something else or not at all; they never panic.
    for at in 0..payload.len() {
        for bit in 0..8 {
            let mut changed = payload.to_vec();
            changed[at] ^= 1 << bit;
            if let Ok(found) = decode::<M>(&changed) {
                let again = encode(&found).unwrap();
                assert!(again.len() <= HEADER_BYTES + M::CAP as usize);
            }
        }
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn words<T: std::str::FromStr<Err = crate::words::WordsError>>(text: &str) -> T {
    text.parse().unwrap()
}

#[test]
fn golden_bytes() {
    let key = crate::key::SecretKey::from_seed([1; 32]).unwrap().public();
    let digest = Digest::from_bytes([0xd1; 32]);
    let d1 = "d1".repeat(32);
    golden(&Hello { software: words("1"), site: name("a") }, "000000040001000101310161");
    let catalogue = CatalogueCard { name: name("c"), digest, build: words("b"), variants: 300 };
    let dataset = DatasetCard {
        name: name("d"),
        about: words(""),
        approximate_size: 2_500,
        dictionary: digest,
        catalogues: vec![catalogue],
        duo: vec![words("D")],
        cap_epsilon_micro: 8_000_000,
        cap_delta_femto: 1,
        min_cohort: 30,
    };
    let card = SiteCard { software: words("1"), datasets: vec![dataset], charters: vec![digest] };
    let want = ["013101016400c413", "010163", "0162ac0201014480a4e803011e01"];
    golden(&card, &format!("0000007900020001{}{d1}{}{d1}{}{d1}", want[0], want[1], want[2]));
    golden(&Fetch { digest }, &format!("0000002000030001{d1}"));
    golden(&Document { bytes: 300 }, "0000000200040001ac02");
    golden(&Chunk { bytes: vec![1, 2, 3] }, "000000040005000103010203");
    let bound = Bound::Range { lower: 0.0, upper: 2.0 };
    let statistic = Statistic { name: "n".into(), length: 1, bound, weight: 1.0, source: Source::Given };
    let request = RoundRequest { statistics: vec![statistic], budget_share: 0.5, state: vec![9], dosages: true };
    let offer = Offer { manifest: vec![0x7b, 0x7d], round: 1, request };
    let want = "0000002d00060001027b7d0101016e010000000000000000000000000000000040000000000000f03f00000000000000e03f010901";
    golden(&offer, want);
    let mut offer = offer;
    let sums = GenotypeSums { factors: 1, scores: vec![-1_024, 0, 300, 0].into() };
    offer.request.statistics[0].source = Source::Genotypes(sums);
    offer.request.dosages = false;
    let want = "0000003500060001027b7d0101016e010000000000000000000000000000000040000000000000f03f010104ff0f00d80400000000000000e03f010900";
    golden(&offer, want);
    golden(&Answer::Need { from: 5 }, "00000002000700010005");
    golden(&Answer::Accepted, "000000010007000101");
    golden(&Answer::Refused { code: words("c"), why: words("w") }, "00000005000700010201630177");
    let receipt = Receipt { leaf: "l".into(), proof: "p".into() };
    golden(&Answer::Settled { padded: vec![0x7b], receipt }, "000000070007000103017b016c0170");
    golden(&Answer::Held { why: words("w") }, "0000000300070001040177");
    golden(&Close { job: JobId::from_bytes([7; 16]) }, &format!("0000001000080001{}", "07".repeat(16)));
    golden(&Done, "0000000000090001");
    let spki = key.to_spki();
    let raw = hex(&spki[12..]);
    let request = SiteRequest {
        organisation: words("o"),
        country: words("NL"),
        link: key,
        log_origin: words("l"),
        log: key,
        witness: key,
    };
    golden(&Join { request, proofs: vec![5; 2] }, &format!("0000006a000a0001016f024e4c{raw}016c{raw}{raw}020505"));
    golden(&TrustUpdate { envelope: vec![0x7b] }, "00000002000c0001017b");
    golden(&AddCheckpoint { request: "old 0".into() }, "00000006000d0001056f6c642030");
    golden(&Relay { to: name("a"), request: "old 0".into() }, "00000008000e00010161056f6c642030");
    golden(&Cosigned { status: 409, body: "7".into() }, "00000004000f000199030137");
    golden(&Decided { jobs: vec![JobId::from_bytes([7; 16])] }, &format!("000000110010000101{}", "07".repeat(16)));
    golden(&Joined::Welcome { name: name("a") }, "00000003000b0001000161");
    golden(&Joined::Refused { why: words("w") }, "00000003000b0001010177");
}

#[test]
fn a_frame_of_another_kind_or_size_is_refused_before_it_is_read() {
    let header = Header { length: 3, kind: Chunk::KIND, version: 1 };
    assert_eq!(header.expect::<Chunk>(), Ok(3));
    assert_eq!(header.expect::<Offer>().unwrap_err().code(), "frame-unexpected");
    assert_eq!(Header { version: 2, ..header }.expect::<Chunk>().unwrap_err().code(), "frame-unexpected");
    let long = Header { length: Chunk::CAP + 1, ..header };
    assert_eq!(long.expect::<Chunk>().unwrap_err().code(), "frame-too-long");
    let big = Chunk { bytes: vec![0; CHUNK_BYTES + 100] };
    assert_eq!(encode(&big).unwrap_err().code(), "frame-too-long");
}

#[test]
fn the_last_answer_has_one_length_whatever_is_in_it() {
    use crate::calibration::NoiseScale;
    use crate::release::{NoisedStatistic, Release, Rounding};
    use crate::round::{Bound, Statistic};
    use crate::scores::Source;
    let lengths: [u32; 3] = [1, 700, 3];
    let name = |index: usize| "\"".repeat(index + 1);
    let statistic =
        |(index, length)| Statistic { name: name(index), length, bound: Bound::OneCell, weight: 1.0, source: Source::Given };
    let statistics = lengths.into_iter().enumerate().map(statistic).collect();
    let round = RoundRequest { statistics, budget_share: 1.0, state: vec![], dosages: true };
    let release = |value: i64, charged: u64| {
        let noised = |(index, length): (usize, u32)| NoisedStatistic {
            name: name(index),
            log2_scale: -1_074,
            noise: NoiseScale::Gaussian { sigma: u64::MAX },
            steps: vec![value; length as usize],
        };
        let statistics = lengths.into_iter().enumerate().map(noised).collect();
        let rounding = (charged > 0).then_some(Rounding { suppress_below: u32::MAX, round_to: u32::MAX });
        let site = "s".repeat(64).parse().unwrap_or_else(|_| "s".parse().unwrap());
        let release = Release {
            job: JobId::from_bytes([255; 16]),
            round: u32::MAX,
            site,
            charged_rho_pico: charged,
            rounding,
            statistics,
            salt: crate::salt::Salt::from_bytes([255; 32]),
        };
        serde_json::to_vec(&release).unwrap()
    };
    let length = |release: Option<&[u8]>| {
        let receipt = Receipt { leaf: String::new(), proof: String::new() };
        let Answer::Settled { padded, .. } = Answer::settled(release, &round, receipt) else { panic!("settled") };
        assert_eq!(Answer::release(&padded), release);
        padded.len()
    };
    let (short, long) = (release(0, 0), release(i64::MIN, u64::MAX));
    assert!(long.len() > 10 * short.len() / 2, "the longest is far longer than the shortest");
    assert_eq!(length(None), length(Some(&short)));
    assert_eq!(length(None), length(Some(&long)));
}

#[test]
fn a_peers_words_have_a_kind_and_a_length() {
    // As a peer of another program could write them: an answer's number, a code, a sentence.
    let answer = |code: &str, why: &str| decode::<Answer>(&postcard::to_stdvec(&(2_u8, code, why)).unwrap());
    assert_eq!(answer("c", "w"), Ok(Answer::Refused { code: words("c"), why: words("w") }));
    assert!(answer(&"c".repeat(64), &"w".repeat(1_000)).is_ok());
    for (code, why) in
        [("c", "w\u{1b}[2J"), ("c", "\u{202e}"), ("c\u{7}", "w"), ("C", "w"), (&"c".repeat(65), "w"), ("c", &"w".repeat(1_001))]
    {
        assert_eq!(answer(code, why), Err(FrameError::Payload { kind: Answer::KIND }));
    }
    let held = |why: &str| decode::<Answer>(&postcard::to_stdvec(&(4_u8, why)).unwrap());
    assert!(held("w").is_ok() && held("w\nw").is_err() && held(&"w".repeat(1_001)).is_err());
}

/// The longest answer that a site can have about a round is taken, and one that is longer is not read.
#[test]
fn an_answer_is_no_longer_than_its_rounds() {
    let bound = Bound::Range { lower: 0.0, upper: 1.0 };
    let statistic = Statistic { name: "x".into(), length: 1_000, bound, weight: 1.0, source: Source::Given };
    let round = RoundRequest { statistics: vec![statistic], budget_share: 1.0, state: vec![], dosages: false };
    let receipt =
        || Receipt { leaf: "x".repeat(crate::log::leaf::MAX_LEAF_BYTES), proof: "x".repeat(crate::log::proof::MAX_BYTES) };
    let header = |answer: &Answer| {
        let frame = encode(answer).unwrap();
        Header::parse(*frame.first_chunk::<HEADER_BYTES>().unwrap()).within(Answer::most_bytes(&round))
    };
    let longest = vec![b'x'; crate::release::most_bytes(&round)];
    assert!(header(&Answer::settled(Some(&longest), &round, receipt())).is_ok());
    let more = vec![b'x'; longest.len() + 65];
    assert_eq!(header(&Answer::settled(Some(&more), &round, receipt())).unwrap_err().code(), "frame-too-long");
}
