//! What the tests run on Slurm.

#[path = "../tests/federation/slurm/cluster.rs"]
pub(crate) mod cluster;
#[path = "../tests/federation/slurm/round.rs"]
pub(crate) mod round;
