//! What a peer may send: frames' payloads, and the documents and texts inside of them. The first byte says which.
#![no_main]

use vestibule_protocol::charter::SignedCharter;
use vestibule_protocol::dsse;
use vestibule_protocol::frame::{HEADER_BYTES, Header, Message, decode, encode};
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::leaf::Leaf;
use vestibule_protocol::log::note;
use vestibule_protocol::log::policy::Policy;
use vestibule_protocol::log::proof::{AddCheckpoint, LeafProof};
use vestibule_protocol::message as m;
use vestibule_protocol::round::{Round, Statistic};
use vestibule_protocol::token::Invitation;
use vestibule_protocol::trust::Trust;

/// What decodes is written again as bytes that decode to the same.
fn frame<M: Message>(payload: &[u8]) -> Option<M> {
    let message = decode::<M>(payload).ok()?;
    if let Ok(written) = encode(&message) {
        let (header, payload) = written.split_first_chunk::<HEADER_BYTES>().expect("a frame has a header");
        assert_eq!(Header::parse(*header).expect::<M>(), Ok(payload.len()));
        let again = encode(&decode::<M>(payload).expect("what was written is read")).expect("it was as long before");
        assert_eq!(again, written);
    }
    Some(message)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let text = str::from_utf8(bytes).unwrap_or_default();
    match which % 26 {
        0 => drop(frame::<m::Hello>(bytes)),
        1 => drop(frame::<m::SiteCard>(bytes)),
        2 => drop(frame::<m::Fetch>(bytes)),
        3 => drop(frame::<m::Chunk>(bytes)),
        4 => {
            if let Some(offer) = frame::<m::Offer>(bytes) {
                if let Ok(round) = Round::check(offer.request) {
                    _ = round.statistics().iter().map(Statistic::given).sum::<usize>();
                }
            }
        }
        5 => {
            if let Some(m::Answer::Settled { padded, .. }) = frame(bytes) {
                _ = m::Answer::release(&padded);
            }
        }
        6 => drop(frame::<m::Close>(bytes)),
        7 => drop(frame::<m::Done>(bytes)),
        8 => drop(frame::<m::Join>(bytes)),
        9 => drop(frame::<m::Joined>(bytes)),
        10 => drop(frame::<m::TrustUpdate>(bytes)),
        11 => drop(frame::<m::AddCheckpoint>(bytes)),
        12 => drop(frame::<m::Relay>(bytes)),
        13 => drop(frame::<m::Cosigned>(bytes)),
        14 => drop(Trust::stored(bytes)),
        15 => drop(SignedCharter::verify(bytes)),
        16 => drop(dsse::signers(bytes, "application/x", &[])),
        17 => {
            if let Some(checkpoint) = Checkpoint::parse(text) {
                assert_eq!(Checkpoint::parse(&checkpoint.text()).as_ref(), Some(&checkpoint));
            }
        }
        18 => {
            if let Ok(leaf) = Leaf::parse(bytes) {
                assert!(Leaf::parse(&leaf.to_bytes()).is_ok());
            }
        }
        19 => {
            if let Some(proof) = LeafProof::parse(text) {
                assert_eq!(LeafProof::parse(&proof.text()), Some(proof));
            }
        }
        20 => {
            if let Some(asked) = AddCheckpoint::parse(text) {
                assert_eq!(AddCheckpoint::parse(&asked.text()), Some(asked));
            }
        }
        21 => drop(Policy::parse(text)),
        22 => drop(note::open(text, &[])),
        23 => drop(frame::<m::Document>(bytes)),
        24 => drop(frame::<m::Decided>(bytes)),
        _ => drop(Invitation::from_token(text)),
    }
});
