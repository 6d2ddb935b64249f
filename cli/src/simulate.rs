//! Made-up cohorts of any size, whose answer is known.
//!
//! *In*: how many people, variants and sites, and a seed. *Out*: for each site a folder as a hospital would deliver it (PLINK files or VCF, a
//! table in that site's own coding, the recipe to ingest it), and beside them the truth. The same numbers give the same bytes
//! anywhere. *Refuses*: a folder that is there.
//!
//! [`haplotypes`] makes founders with the frequencies and the linkage of a neutral population; [`people`] are mosaics of founders, a
//! square of 64 people and 64 variants at a time; [`sites`] writes them down.

pub(crate) mod haplotypes;
pub(crate) mod people;
pub(crate) mod sites;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Study {
    /// At each site.
    pub(crate) people: u32,
    pub(crate) variants: u32,
    pub(crate) sites: u32,
    /// Variants with an effect on the trait.
    pub(crate) causal: u32,
    /// The part of the trait's variance that they explain together.
    pub(crate) heritability: f64,
    pub(crate) seed: u64,
    pub(crate) vcf: bool,
}
