//! The whole of Vestibule, as its users run it: processes of the built binary, real QUIC, real files.
//!
//! | module | what it shows |
//! |---|---|
//! | `jobs` | two sites answer a job; refusals say why |
//! | `bucket` | rows that lie in an S3 server: the same jobs; what is wrong with it is told to the site alone |
//! | `components` | a component with imports is refused everywhere; compiled code is trusted only with our seal |
//! | `crashes` | killed daemons lose no job, charge no round twice, send no second release |
//! | `attack` | every attack is held off, and succeeds where a defect is planted |
//! | `disk` | a coordinator whose disk was full goes on where it was once there is room |
//! | `flood` | connections without a key, and one person with hundreds, cost a coordinator little and an honest person nothing |
//! | `load` | many jobs at once all finish; what waits for a person keeps nobody waiting |
//! | `member` | a member site with real keys that does all that it should not is out, and harms nobody else |
//! | `folder` | a coordinator's folder is its user's alone, and a name that was given by mistake is free again |
//! | `hostile` | a dry run shows what hostile guests did, and counts nothing of it |
//! | `isolation` | no instance finds anything of another, at the settings of sites; `prepare` is held to its limits |
//! | `public` | what sees no data is ended in time, and takes nobody's place, at sites and at the coordinator |
//! | `real` | 18 countries' exact sums equal plink2's counts; the noise is what was promised |
//! | `review` | what rules do not decide waits for people whose word counts; releases wait on a site's terms; officers set rules |
//! | `simulated` | every coding of simulated sites is read; their planted effects are found; anyone who withdraws is left out |
//! | `slurm` | rounds on a real Slurm: the sums that threads have, lost tasks, killed daemons, no key of the site on a node |
//! | `time` | a release leaves when its delay is over, no matter who asks |
//! | `network` | jobs end over links that lose and delay packets; nothing reaches a site unasked; a site that was cut off comes back |
//! | `trust` | edited terms, old bundles, forged proofs, revoked keys: nobody is believed for who they are |
//! | `witnesses` | silent witnesses, restored backups, rewritten logs, a witness that is no site |
//! | `backup` | a site's backup says nothing without the keys, and is found out when it is restored |
//! | `rotation` | new keys in the place of a site's old ones, while jobs run |
//! | `liar` | a coordinator that lies |
//! | `commands` | exit codes, JSON, and what errors say |
//! | `canary` | nothing of a person is in a log, an error or a file name |
//! | `closed` | processes that hold keys leave no core, and nobody of their user reads their memory |
//! | `walls` | each wall around a process that reads what others wrote |
//! | `https` | a proxy with a certificate, for tests |
//! | `world` | the fixture |
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]
#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod attack;
mod backup;
mod bucket;
mod canary;
mod closed;
mod commands;
mod components;
mod crashes;
mod disk;
mod flood;
mod folder;
mod hostile;
mod https;
mod isolation;
mod jobs;
mod liar;
mod load;
mod member;
mod network;
mod public;
mod real;
mod review;
mod rotation;
mod simulated;
mod slurm;
mod time;
mod trust;
mod walls;
mod witnesses;
mod world;
