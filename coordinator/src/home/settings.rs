//! The coordinator's settings, and where a running one listens.
//!
//! *In*: `coordinator.toml`. *Out*: [`Settings`]. *Refuses*: unknown names.

use serde::{Deserialize, Serialize};

/// `coordinator.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where sites dial: UDP.
    pub quic: String,
    /// Where researchers call: TCP.
    pub api: String,
    /// Where sites dial that no UDP comes from: TCP.
    pub tunnel: Option<String>,
    /// How sites reach `quic` from outside; by default the same.
    pub public_quic: Option<String>,
    /// How sites reach `tunnel` from outside; by default the same.
    pub public_tunnel: Option<String>,
    /// How researchers reach `api` from outside; by default the same.
    pub public_api: Option<String>,
    /// Longest that one call of an analysis (compiling, `plan`, `next`) may take, in seconds.
    pub max_public_seconds: u32,
    /// Calls of analyses that run at the same time; one person has all but one of these places at most.
    pub public_places: usize,
    /// What one person's components may take of the disk, in MiB. Those that no job names make room for new ones.
    pub component_mib_per_person: u32,
}

impl Settings {
    /// Refuses what no coordinator can run with, by its name and what to do.
    pub(super) fn check(&self) -> Result<(), String> {
        let at_least_1 = [
            ("max_public_seconds", u64::from(self.max_public_seconds)),
            ("public_places", self.public_places as u64),
            ("component_mib_per_person", self.component_mib_per_person.into()),
        ];
        if let Some((name, _)) = at_least_1.iter().find(|(_, value)| *value == 0) {
            return Err(format!("`{name}` is 0, with which no job can run: give 1 at least, or leave it out"));
        }
        let own = [("quic", Some(&self.quic)), ("api", Some(&self.api)), ("tunnel", self.tunnel.as_ref())];
        for (name, address) in own {
            if let Some(address) = address.filter(|address| address.parse::<std::net::SocketAddr>().is_err()) {
                return Err(format!(
                    "`{name}` is {address:?}: give the address to listen on, an IP address and a port, as in \"0.0.0.0:7443\""
                ));
            }
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        let (quic, api) = ("127.0.0.1:7443".to_owned(), "127.0.0.1:7480".to_owned());
        let (max_public_seconds, public_places, component_mib_per_person) = (30, 2, 512);
        Self {
            quic,
            api,
            tunnel: None,
            public_quic: None,
            public_tunnel: None,
            public_api: None,
            max_public_seconds,
            public_places,
            component_mib_per_person,
        }
    }
}

pub(super) const TEMPLATE: &str = "\
# Settings of this coordinator. Port 0 takes any free port; run/addresses.json says which.
quic = \"127.0.0.1:7443\"   # where sites dial (UDP)
api  = \"127.0.0.1:7480\"   # where researchers call (HTTP). Beyond this machine, put a TLS proxy before it
# tunnel    = \"0.0.0.0:443\"                              # where sites dial whose network lets no UDP out (TCP, TLS)
# public_quic = \"coordinator.example.org:7443\"          # what invitations tell sites
# public_tunnel = \"coordinator.example.org:443\"         # the same
max_public_seconds = 30     # compiling, `plan` and `next` of an analysis: each may take so long
public_places = 2           # of those, how many run at the same time; one person has one place less
component_mib_per_person = 512   # of the disk; those that no job names make room for new ones
# public_api  = \"https://coordinator.example.org\"       # what invitations tell researchers
";

/// The addresses that a running daemon listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// `host:port` for sites.
    pub quic: String,
    /// `host:port` for sites that no UDP comes from.
    pub tunnel: Option<String>,
    /// Base URL for researchers.
    pub api: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_with_which_nothing_runs_are_refused_by_name() {
        let check = |text: &str| toml::from_str::<Settings>(text).unwrap().check();
        assert_eq!(check(TEMPLATE), Ok(()));
        for (wrong, right) in [
            ("max_public_seconds = 0", "max_public_seconds = 1"),
            ("public_places = 0", "public_places = 1"),
            ("component_mib_per_person = 0", "component_mib_per_person = 1"),
            ("quic = \"nonsense\"", "quic = \"[::1]:0\""),
            ("api = \"127.0.0.1\"", "api = \"127.0.0.1:80\""),
            ("tunnel = \"443\"", "tunnel = \"0.0.0.0:443\""),
        ] {
            let name = wrong.split(' ').next().unwrap();
            assert!(check(wrong).unwrap_err().contains(&format!("`{name}`")), "{wrong}");
            assert_eq!(check(right), Ok(()), "{right}");
        }
    }
}
