//! Everything that two machines of a federation share: names, documents, signatures, frames and the arithmetic of privacy.
//!
//! No I/O, no tokio, no clock: bytes and times come in, values and errors go out, so that the researcher's machine, the
//! coordinator and every site compute the same thing from the same bytes.
//!
//! In the order of the data's path: a project's [`charter`] says why, a [`manifest`] what; both are signed as [`dsse`] envelopes
//! with a [`key`]. A manifest names a component by [`digest`], a dataset by its [`dictionary`] and its [`catalogue`]s; the
//! analysis asks for [`round`]s, whose names mean what [`shape`] finds, some of them with [`scores`] for genotypes; [`privacy`]
//! turns the job's epsilon into a budget and [`calibration`] each statistic's bound into noise; a
//! [`release`] comes back, with its [`salt`];
//! [`report`] is what the researcher reads. [`frame`] and [`message`] are how all that travels, [`tls`] how the two ends know
//! each other, [`token`] how they first meet, [`trust`] who belongs to a consortium and by which keys, [`review`] how a person says yes or no, [`log`] how a site proves
//! what it did, and [`request`] how a researcher signs a call of the coordinator's HTTP API.

pub mod calibration;
pub mod catalogue;
pub mod charter;
pub mod dictionary;
pub mod digest;
pub mod dsse;
pub mod frame;
pub mod job;
pub mod key;
pub mod log;
pub mod manifest;
pub mod message;
pub mod name;
pub mod privacy;
pub mod release;
pub mod report;
pub mod request;
pub mod review;
pub mod round;
pub mod salt;
pub mod scores;
pub mod shape;
pub mod tls;
pub mod token;
pub mod trust;
pub mod words;
