//! A member site with real keys that does all that it should not: others notice nothing but that it is out.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quinn::Connection;
use vestibule_link::{Framed, LinkError, Way, dial};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::frame::Message as _;
use vestibule_protocol::message::{
    Answer, CatalogueCard, Chunk, Close, Cosigned, DatasetCard, Decided, Document, Done, Fetch, Hello, MAX_DECIDED, Offer,
    Receipt, Relay, SiteCard, TrustUpdate,
};
use vestibule_protocol::words::{Label, Sentence};
use vestibule_runtime::dataset::Dataset;
use vestibule_runtime::home::Home;

use crate::world::{World, wait};

/// An honest person's job is done by then, in each of the member's manners.
const JOB: Duration = Duration::from_secs(30);
/// Most memory of the coordinator, and most descriptors.
const MOST_MB: f64 = 100.0;
const MOST_DESCRIPTORS: usize = 100;
/// How long each thing is done, while honest jobs go on.
const BEHAVES: Duration = Duration::from_secs(2);
/// What a site may name.
const DOCUMENTS: usize = 64;

/// What the member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Names more documents than a site may have.
    ManyDocuments,
    /// Has a document of which a byte comes at a time.
    SlowDocument,
    /// Sends other bytes than those it named.
    WrongDocument,
    /// Asks witnesses, and says that things were decided, on all streams at once.
    Talks,
    /// Says that more was decided than one may say at once.
    SaysTooMuch,
    /// Sends frames that are none, and such as announce 4 GiB.
    Rubbish,
    /// Comes again and again.
    ComesAgain,
    /// Asks for the component for ever.
    NeedsForEver,
    /// Says for ever that it has begun.
    AcceptsForEver,
    /// Answers with what it has not in its log, as long as it can be.
    Forges,
    /// Begins, and is silent.
    IsSilent,
}

/// The member, for as long as this is held.
struct Member {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Member {
    fn begins(world: &World, site: &str, how: How) -> Self {
        let home = Home::open(&world.dir().join(site), None).unwrap();
        let coordinator = home.coordinator().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let quic = world.quic().to_string();
        let card = card(how, &home);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut came = 0;
                while !stopped.load(Ordering::Relaxed) {
                    let way = Way { quic: &quic, tunnel: None };
                    let Ok(dialled) = dial(way, home.link_key(), coordinator.key).await else { continue };
                    came += 1;
                    let ended = async {
                        while !stopped.load(Ordering::Relaxed) {
                            tokio::time::sleep(Duration::from_millis(50)).await
                        }
                    };
                    tokio::select! {
                        () = ended => {}
                        _ = converse(how, &card, &dialled.connection) => {}
                    }
                }
                came
            })
        });
        Self { stop, thread: Some(thread) }
    }

    /// How often it came.
    fn ends(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

async fn converse(how: How, card: &SiteCard, connection: &Connection) -> Result<(), LinkError> {
    let says = async {
        match how {
            How::ComesAgain => {
                let mut stream = Framed::accept(connection).await?;
                let header = stream.header().await?;
                let _: Hello = stream.payload(header).await?;
                stream.send(card).await
            }
            How::Talks | How::SaysTooMuch | How::Rubbish => {
                // Once it counts as connected.
                tokio::time::sleep(Duration::from_millis(300)).await;
                loop {
                    let all: Vec<_> = (0..80).map(|_| say(how, connection)).collect();
                    futures(all).await;
                }
            }
            _ => std::future::pending().await,
        }
    };
    let hears = async {
        let mut streams = tokio::task::JoinSet::new();
        loop {
            let stream = Framed::accept(connection).await?;
            streams.spawn(answer(how, card.clone(), stream));
        }
    };
    if how == How::ComesAgain {
        return says.await;
    }
    tokio::select! {
        said = says => said,
        heard = hears => heard,
    }
}

/// Waits for all of them.
async fn futures(all: Vec<impl Future<Output = Result<(), LinkError>>>) {
    for each in all {
        let _ = tokio::time::timeout(Duration::from_secs(5), each).await;
    }
}

async fn say(how: How, connection: &Connection) -> Result<(), LinkError> {
    if how == How::Rubbish {
        let (mut send, _) = connection.open_bi().await.map_err(|error| LinkError::Closed(error.to_string()))?;
        let _ = send.write_all(&[255; 4096]).await;
        return Ok(());
    }
    let mut stream = Framed::open(connection).await?;
    if how == How::SaysTooMuch {
        let jobs = vec!["00112233445566778899aabbccddeeff".parse().unwrap(); MAX_DECIDED + 1];
        stream.send(&Decided { jobs }).await?;
        let refused = stream.receive::<Done>().await;
        assert!(refused.is_err(), "more than {MAX_DECIDED} at once were heard");
        return Ok(());
    }
    let jobs = vec!["00112233445566778899aabbccddeeff".parse().unwrap(); MAX_DECIDED];
    stream.send(&Decided { jobs }).await?;
    stream.receive::<Done>().await?;
    let mut stream = Framed::open(connection).await?;
    stream.send(&Relay { to: "leiden".parse().unwrap(), request: "x".repeat(60_000) }).await?;
    stream.receive::<Cosigned>().await.map(drop)
}

/// What it says that it has: what it had, or documents that nobody knows.
fn card(how: How, home: &Home) -> SiteCard {
    let software: Label = "member".parse().unwrap();
    let unknown = match how {
        How::ManyDocuments => DOCUMENTS + 1,
        How::SlowDocument | How::WrongDocument => 1,
        _ => 0,
    };
    let info = Dataset::info_of(&home.data().unwrap(), &"cohort".parse().unwrap()).unwrap().unwrap();
    let catalogues = info.catalogues.iter().map(|catalogue| CatalogueCard {
        name: catalogue.name.clone(),
        digest: catalogue.digest,
        build: Label::cut(&catalogue.build),
        variants: u32::try_from(catalogue.variants.len()).unwrap(),
    });
    let known = DatasetCard {
        name: info.name.clone(),
        about: Sentence::cut(&info.about),
        approximate_size: info.approximate_size,
        dictionary: info.dictionary.digest,
        catalogues: catalogues.collect(),
        duo: vec![],
        cap_epsilon_micro: info.budget.epsilon_micro(),
        cap_delta_femto: info.budget.delta_femto(),
        min_cohort: 0,
    };
    let other = |n: usize| DatasetCard {
        name: format!("d{n}").parse().unwrap(),
        dictionary: Digest::of(&n.to_le_bytes()),
        catalogues: vec![],
        ..known.clone()
    };
    let datasets = if unknown == 0 { vec![known] } else { (0..unknown).map(other).collect() };
    let charters = home.charters().unwrap().iter().map(|charter| charter.signed().digest()).collect();
    SiteCard { software, datasets, charters }
}

async fn answer(how: How, card: SiteCard, mut stream: Framed) -> Result<(), LinkError> {
    let header = stream.header().await?;
    match header.kind {
        Hello::KIND => {
            let _: Hello = stream.payload(header).await?;
            stream.send(&card).await?;
        }
        Fetch::KIND => {
            let _: Fetch = stream.payload(header).await?;
            stream.send(&Document { bytes: 1 << 20 }).await?;
            loop {
                if how == How::SlowDocument {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    stream.send(&Chunk { bytes: vec![0] }).await?;
                } else {
                    stream.send(&Chunk { bytes: vec![0; 1 << 16] }).await?;
                }
            }
        }
        TrustUpdate::KIND | Close::KIND => stream.send(&Done).await?,
        Offer::KIND => {
            let offer: Offer = stream.payload(header).await?;
            loop {
                match how {
                    How::NeedsForEver => {
                        stream.send(&Answer::Need { from: 0 }).await?;
                        while let Ok(Chunk { .. }) = stream.receive().await {}
                    }
                    How::AcceptsForEver => stream.send(&Answer::Accepted).await?,
                    How::Forges => {
                        let receipt = Receipt { leaf: "x".repeat(60_000), proof: "y".repeat(6_000) };
                        let padded = vec![b' '; 64 << 20];
                        let answer = if offer.round == 0 { Answer::Settled { padded, receipt } } else { Answer::Accepted };
                        stream.send(&answer).await?;
                    }
                    _ => {
                        stream.send(&Answer::Accepted).await?;
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
        _ => {}
    }
    stream.finish().await
}

/// Of a process, in MB and descriptors.
fn held(pid: u32) -> (f64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
    (kib / 1024.0, std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

#[test]
fn a_member_that_does_all_that_it_should_not_harms_nobody_else() {
    // Nobody's answer waits for the member's word.
    let mut world = World::witnessed(&["leiden", "kyoto"], 0);
    world.kill_site("kyoto");
    world.connected(1);
    let (_, pid) = world.pids().into_iter().find(|(name, _)| name == "coordinator").unwrap();
    let honest = |number: usize| {
        let began = Instant::now();
        let text = format!(
            "epsilon = {:.6}\ndelta = 1e-9\nsites = [\"leiden\"]\nmin_sites = 1\n[params]\ncolumns = [\"age\"]\n",
            0.01 + 1e-6 * number as f64
        );
        assert_eq!(world.ended(&world.submitted("cohort-summary", &text))["state"], "finished", "{}", world.log());
        began.elapsed()
    };
    // What is compiled once.
    honest(0);
    let all = [
        How::ManyDocuments,
        How::SlowDocument,
        How::WrongDocument,
        How::Talks,
        How::SaysTooMuch,
        How::Rubbish,
        How::ComesAgain,
        How::NeedsForEver,
        How::AcceptsForEver,
        How::Forges,
        How::IsSilent,
    ];
    for (number, how) in all.into_iter().enumerate() {
        let member = Member::begins(&world, "kyoto", how);
        // One that asks both sites, and would take what the member's own answer is.
        let offered = matches!(how, How::NeedsForEver | How::AcceptsForEver | How::Forges | How::IsSilent);
        let both = offered.then(|| {
            world.connected(2);
            let text = format!(
                "epsilon = {:.3}\ndelta = 1e-9\nsites = [\"leiden\", \"kyoto\"]\nmin_sites = 1\nround_deadline_seconds = 6\n\
                 [params]\ncolumns = [\"age\"]\n",
                0.2 + 0.001 * number as f64
            );
            world.submitted("cohort-summary", &text)
        });
        let (begun, mut took, mut jobs) = (Instant::now(), Duration::ZERO, 0);
        while begun.elapsed() < BEHAVES {
            // Of very many small releases a site has a person look at some.
            if jobs < 4 {
                jobs += 1;
                took = took.max(honest(number * 100 + jobs));
            }
            assert!(took < JOB && world.sites().is_array(), "{how:?}: {took:?}");
        }
        if let Some(job) = both {
            let status = world.ended(&job);
            assert_eq!(status["state"], "finished", "{how:?}: {status}");
            let sites = status["sites"].as_array().unwrap();
            let state = |name: &str| sites.iter().find(|site| site["site"] == name).unwrap()["state"].clone();
            assert_eq!(state("leiden"), "released", "{how:?}: {status}");
            assert_ne!(state("kyoto"), "released", "{how:?}: {status}");
        }
        let (mb, descriptors) = held(pid);
        let came = member.ends();
        eprintln!("{how:?}: {jobs} jobs in {took:?} at most, {mb:.0} MB, {descriptors} descriptors, came {came} times");
        assert!(mb < MOST_MB && descriptors < MOST_DESCRIPTORS, "{how:?}: {mb} MB, {descriptors} descriptors");
        wait("the member's end", || {
            let sites = world.sites();
            sites.as_array()?.iter().all(|site| site["site"] != "kyoto" || site["connected"] == false).then_some(())
        });
    }
}
