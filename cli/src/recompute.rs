//! A result, computed again on the researcher's own machine from what the sites' logs prove that they released.
//!
//! *In*: the manifest that the researcher signed, the component and documents that it names by digest, releases whose receipts were checked. *Out*: the
//! report that follows from them. *Trusts*: the researcher's own signature, and digests. *Refuses*: rounds that the analysis does not ask for,
//! releases that do not answer them, fewer sites than the manifest needs. So the coordinator need not be believed for the sum either.

use anyhow::Result;
use vestibule_coordinator::api::types::Receipt;
use vestibule_coordinator::documents::Documents;
use vestibule_coordinator::intake::Desk;
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::manifest::Signed;
use vestibule_protocol::name::Name;
use vestibule_protocol::release::{Release, combine};
use vestibule_protocol::report::Report;
use vestibule_sandbox::Step;

use crate::client::Client;
use crate::compiled;
use crate::failure::{Exit, Failure, coded};
use crate::html::Facts;

/// The report that a job's proven releases give, and what else is known of the job for certain.
pub(crate) fn report(client: &Client, own: &[PublicKey], job: &str, receipts: &[Receipt]) -> Result<(Report, Facts)> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::of(Exit::Refused, "result-differs", format!("the result cannot be had again: {why}"))
    };
    let signed = Signed::verify(&client.manifest(job)?, own).map_err(|error| coded(error.code(), error))?;
    if signed.manifest().job.to_string() != job {
        return Err(wrong(&"the coordinator shows another job's manifest"));
    }
    let folder = tempfile::tempdir()?;
    let documents = Documents::new(folder.path());
    let manifest = signed.manifest();
    let catalogues = manifest.catalogues.iter().map(|catalogue| catalogue.sha256);
    for digest in [manifest.component.sha256, manifest.dictionary].into_iter().chain(catalogues) {
        if documents.put(&client.document(digest)?)? != digest {
            return Err(wrong(&format_args!("the document {digest} came with other bytes")));
        }
    }
    let sandbox = compiled::sandbox(false)?;
    let desk = Desk { documents: &documents, researchers: own, sites: &[] };
    let component = desk.component(signed.manifest()).map_err(|error| coded(error.code(), error))?;
    let analysis = sandbox.load(&component).map_err(|error| coded(error.code(), error))?;
    let plan = analysis.plan(&signed.manifest().params, signed.manifest().limits);
    let plan = plan.map_err(|error| coded(error.code(), error))?;
    let ready = desk.ready(signed, plan).map_err(|error| coded(error.code(), error))?;
    let manifest = ready.signed.manifest();
    let shape = desk.shape(manifest, &ready.plan).map_err(|error| coded(error.code(), error))?;
    let mut history = Vec::new();
    for index in 0_u32.. {
        let step = analysis.next(&manifest.params, &shape, &history, manifest.limits);
        let round = match step.map_err(|error| coded(error.code(), error))? {
            Step::Report(report) => {
                let of = |site: &Name| {
                    receipts.iter().filter(|receipt| receipt.round < index && receipt.site == site.as_str()).count()
                };
                let sites = manifest.sites.iter().map(|site| (site.clone(), of(site))).collect();
                return Ok((report, Facts { manifest: manifest.clone(), rounds: index, sites }));
            }
            Step::Round(round) => round,
        };
        let budget = ready.signed.budget().round(round.share_ppb());
        let calibrated = calibrate(&round, ready.plan.partitioning, budget).map_err(|error| wrong(&error))?;
        let of_round = receipts.iter().filter(|receipt| receipt.round == index);
        let releases = of_round.map(|receipt| {
            let site = receipt.site.parse().map_err(|error| wrong(&error))?;
            Release::parse(receipt.release.as_bytes(), manifest.job, index, &site, &round, &calibrated)
                .map_err(|error| wrong(&error))
        });
        let releases = releases.collect::<Result<Vec<_>>>()?;
        if releases.len() < manifest.min_sites as usize {
            return Err(wrong(&format_args!(
                "{} sites released round {index}, and the manifest needs {}",
                releases.len(),
                manifest.min_sites
            )));
        }
        history.push(combine(&round, &releases));
    }
    unreachable!("the loop returns, or runs out of receipts")
}
