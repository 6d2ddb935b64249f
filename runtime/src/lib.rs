//! The site: the only process family that sees data.
//!
//! In the order of one job's path: [`link`] dials the coordinator and hears an offer; [`admission`] verifies whose it is, and that it is one
//! of a project whose [`charter`] this site has accepted;
//! [`policy`] decides whether this site takes part; [`component`] fetches the analysis and [`guests`] loads it into worker processes; [`ledger`] reserves and
//! charges its budget; [`dataset`] reads partitions and [`round`] has them run, where the [`executor`] says; [`reduce`] clamps and sums; [`noise`] is drawn;
//! [`airlock`] looks at what is about to leave; [`release`] is stored, and sent when its [`delay`] is over, by what this machine [`costs`]; each step is a leaf of the [`log`], which other
//! sites [`witness`]. [`site`] calls them in that order; [`trial`]
//! runs the same steps on a researcher's own data, without a ledger, for a dry run. [`home`] is the site's folder.
//!
//! Each step takes the type that only the step before can make: `Verified`, `Admitted`, `Charged`, `Sums`, `Noised`. Only a
//! release can be serialised.

pub mod admission;
pub mod airlock;
pub mod charter;
pub mod cohort;
pub mod component;
pub mod costs;
pub mod dataset;
pub mod delay;
pub mod executor;
pub mod guests;
pub mod home;
pub mod ledger;
pub mod link;
pub mod log;
pub mod noise;
pub mod partitions;
pub mod policy;
pub mod reduce;
pub mod release;
mod reserve;
pub mod review;
pub mod round;
pub mod site;
pub mod trial;
pub mod witness;
