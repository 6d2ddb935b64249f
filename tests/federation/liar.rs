//! A coordinator that lies: it has the real one's key and address, so sites dial it, and says what a test wants it to say.

use std::collections::BTreeMap;
use std::future::Future;

use vestibule_link::{Framed, LinkError, peer_key};
use vestibule_protocol::key::{PublicKey, SecretKey};
use vestibule_protocol::message::{Answer, CHUNK_BYTES, Chunk, Cosigned, Done, Hello, Offer, Relay, SiteCard, TrustUpdate};
use vestibule_protocol::tls::Pins;
use vestibule_protocol::trust::Trust;

use crate::world::World;

/// How long a site may take before it counts as silent.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

pub(crate) struct Liar {
    runtime: tokio::runtime::Runtime,
    endpoint: quinn::Endpoint,
    connections: BTreeMap<String, quinn::Connection>,
}

/// A witness that is played.
pub(crate) type Witness<'a> = &'a dyn Fn(Relay) -> Cosigned;

pub(crate) fn secret(world: &World, file: &str) -> SecretKey {
    SecretKey::from_pem(&std::fs::read_to_string(world.dir().join(file)).unwrap(), None).unwrap()
}

/// A witness that cannot be reached.
pub(crate) fn nobody(_: Relay) -> Cosigned {
    Cosigned { status: 503, body: String::new() }
}

impl Liar {
    /// Takes the coordinator's place, and waits until these sites have dialled.
    pub(crate) fn instead(world: &mut World, sites: &[&str]) -> Self {
        world.kill_coordinator();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let envelope = std::fs::read(world.dir().join("consortium/bundle.json")).unwrap();
        let members = Trust::stored(&envelope).unwrap().bundle().sites.clone();
        let name = |key: PublicKey| members.iter().find(|site| site.link == key).map(|site| site.name.to_string());
        let pins = Pins::of(members.iter().map(|site| site.link));
        let key = secret(world, "coordinator/keys/coordinator.pem");
        let address = world.quic();
        let (endpoint, connections) = runtime.block_on(async {
            let endpoint = vestibule_link::listen(address, &key, pins).unwrap();
            let mut connections = BTreeMap::new();
            while !sites.iter().all(|site| connections.contains_key(*site)) {
                let accepted = tokio::time::timeout(PATIENCE, endpoint.accept()).await.expect("a site dials").unwrap();
                let Ok(connection) = accepted.await else { continue };
                let site = name(peer_key(&connection).unwrap()).unwrap();
                let mut stream = Framed::open(&connection).await.unwrap();
                stream.send(&Hello { software: "liar".parse().unwrap(), site: site.parse().unwrap() }).await.unwrap();
                stream.receive::<SiteCard>().await.unwrap();
                connections.insert(site, connection);
            }
            (endpoint, connections)
        });
        Self { runtime, endpoint, connections }
    }

    fn within<T>(&self, what: impl Future<Output = Result<T, LinkError>>) -> Result<T, String> {
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, what).await.map_err(|_| "silence".to_owned())?.map_err(|error| error.to_string())
        })
    }

    /// Delivers a trust bundle. Sites always say that they have it, and never what they think of it.
    pub(crate) fn trust(&self, site: &str, envelope: Vec<u8>) {
        self.within(async {
            let mut stream = Framed::open(&self.connections[site]).await?;
            stream.send(&TrustUpdate { envelope }).await?;
            stream.receive::<Done>().await
        })
        .unwrap();
    }

    /// Offers a round, sends this component where one is needed, plays all witnesses; the last answer, or how the stream ended.
    pub(crate) fn offer(&self, site: &str, offer: &Offer, component: &[u8], witness: Witness<'_>) -> Result<Answer, String> {
        let connection = &self.connections[site];
        self.within(async {
            let mut stream = Framed::open(connection).await?;
            stream.send(offer).await?;
            loop {
                let answer = tokio::select! {
                    answer = stream.receive::<Answer>() => answer?,
                    asked = Framed::accept(connection) => {
                        let mut asked = asked?;
                        let relay: Relay = asked.receive().await?;
                        asked.send(&witness(relay)).await?;
                        asked.finish().await?;
                        continue;
                    }
                };
                match answer {
                    Answer::Need { from } => {
                        for piece in component[usize::try_from(from).unwrap()..].chunks(CHUNK_BYTES) {
                            stream.send(&Chunk { bytes: piece.to_vec() }).await?;
                        }
                    }
                    Answer::Accepted => {}
                    last => return Ok(last),
                }
            }
        })
    }

    /// Gives the place back.
    pub(crate) fn leave(self, world: &mut World) {
        self.runtime.block_on(async {
            self.endpoint.close(0_u32.into(), b"");
            self.endpoint.wait_idle().await;
        });
        drop(self);
        world.start_coordinator();
    }
}
