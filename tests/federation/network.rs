//! Networks as hospitals have them: packets are lost and late, nothing comes in from outside, the link is cut for a while.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;

use crate::world::{World, wait};

/// One way. A packet and its answer take twice that.
const DELAY: Duration = Duration::from_millis(150);
/// Of 100 packets.
const LOST: u64 = 5;

const JOB: &str = "epsilon = 0.5\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 3\n[params]\noutcome = \"trait\"\ncovariates = [\"age\"]\n\
    catalogue = \"panel\"\nslices = [[\"8\", 1, 150_000_000]]\n";

/// Where a site that has joined dials from now on.
fn dials(world: &World, site: &str, address: SocketAddr) {
    let file = world.dir().join(site).join("coordinator.json");
    let mut joined: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    joined["quic"] = address.to_string().into();
    std::fs::write(&file, joined.to_string()).unwrap();
}

/// A network between sites and a coordinator: as a NAT does, it lets answers in only to anyone who has sent something out.
struct Network {
    _runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    seen: Arc<AtomicU64>,
}

impl Network {
    /// Where sites reach it: a port of `here`.
    fn to(coordinator: SocketAddr, here: IpAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (cut, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let inside = Arc::new(runtime.block_on(UdpSocket::bind((here, 0))).unwrap());
        let address = inside.local_addr().unwrap();
        let link = Link { cut: Arc::clone(&cut), seen: Arc::clone(&seen) };
        runtime.spawn(async move {
            let mut ways: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
            let mut packet = [0; 65_536];
            loop {
                let Ok((length, site)) = inside.recv_from(&mut packet).await else { continue };
                if let Entry::Vacant(way) = ways.entry(site) {
                    let outside = Arc::new(UdpSocket::bind((here, 0)).await.unwrap());
                    outside.connect(coordinator).await.unwrap();
                    way.insert(Arc::clone(&outside));
                    let (inside, link) = (Arc::clone(&inside), link.clone());
                    tokio::spawn(async move {
                        let mut packet = [0; 65_536];
                        loop {
                            // A coordinator that is not there refuses: the next packet may find it.
                            let Ok(length) = outside.recv(&mut packet).await else { continue };
                            let inside = Arc::clone(&inside);
                            link.carry(packet[..length].to_vec(), move |packet| async move {
                                let _ = inside.send_to(&packet, site).await;
                            });
                        }
                    });
                }
                let outside = Arc::clone(&ways[&site]);
                link.carry(packet[..length].to_vec(), move |packet| async move {
                    let _ = outside.send(&packet).await;
                });
            }
        });
        Self { _runtime: runtime, address, cut, seen }
    }
}

#[derive(Clone)]
struct Link {
    cut: Arc<AtomicBool>,
    seen: Arc<AtomicU64>,
}

impl Link {
    /// Late, or never.
    fn carry<F: Future<Output = ()> + Send + 'static>(
        &self,
        packet: Vec<u8>,
        send: impl FnOnce(Vec<u8>) -> F + Send + 'static,
    ) {
        // Every twentieth is lost, whatever it is: the same in every run.
        let number = self.seen.fetch_add(1, Ordering::Relaxed);
        if self.cut.load(Ordering::Relaxed) || (number * 7) % 100 < LOST {
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(DELAY).await;
            send(packet).await;
        });
    }
}

/// TCP and UDP sockets of a process on which somebody could reach it unasked: listening, or bound to a port below the ephemeral ones.
fn reachable(pid: u32) -> Vec<String> {
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) else { continue };
        for line in text.lines().skip(1) {
            let cells: Vec<&str> = line.split_whitespace().collect();
            let port = u16::from_str_radix(cells[1].rsplit(':').next().unwrap(), 16).unwrap();
            let listens = table.starts_with("tcp") && cells[3] == "0A" || table.starts_with("udp") && port < 32_768;
            if inodes.iter().any(|inode| inode == cells[9]) && listens {
                found.push(format!("{table} {line}"));
            }
        }
    }
    found
}

#[test]
fn three_sites_answer_over_a_bad_network_and_come_back_after_it_was_cut() {
    let sites = ["bogota", "kyoto", "leiden"];
    let mut world = World::new(&sites);
    let network = Network::to(world.quic(), Ipv4Addr::LOCALHOST.into());
    for site in sites {
        world.kill_site(site);
        dials(&world, site, network.address);
        world.start_site(site);
    }
    world.all_connected();
    let status = world.ended(&world.submitted("linear-association", JOB));
    assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
    for (what, pid) in world.pids().into_iter().filter(|(what, _)| what.starts_with("site")) {
        assert_eq!(reachable(pid), Vec::<String>::new(), "{what}");
    }
    // Cut off, long enough for everybody to notice; and back, without anybody doing anything.
    network.cut.store(true, Ordering::Relaxed);
    world.connected(0);
    let waiting = world.submitted("linear-association", &JOB.replace("0.5", "0.6"));
    network.cut.store(false, Ordering::Relaxed);
    world.all_connected();
    let status = world.ended(&waiting);
    assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
    assert!(network.seen.load(Ordering::Relaxed) > 200);
    for site in sites {
        wait("the site's log", || (world.ok(&["log", "verify", site])["releases"] == 4).then_some(()));
    }
}

/// A port that takes packets and never answers, as a firewall's other side does.
fn black_hole() -> std::net::UdpSocket {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap()
}

#[test]
fn sites_whose_network_lets_no_udp_out_come_through_tls() {
    let mut world = World::new(&["leiden", "kyoto"]);
    let tunnel = world.open_tunnels();
    // A site that is invited is told of it; one that was there before is told by its operator.
    let token = world.ok(&["coordinator", "invite", "coordinator", "site", "bogota"]);
    let (invitation, _) = vestibule_protocol::token::Invitation::from_token(token["token"].as_str().unwrap()).unwrap();
    assert_eq!(invitation.tunnel, Some(tunnel.to_string()));
    let hole = black_hole();
    world.kill_site("leiden");
    let file = world.dir().join("leiden/coordinator.json");
    let mut joined: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    joined["quic"] = hole.local_addr().unwrap().to_string().into();
    joined["tunnel"] = tunnel.to_string().into();
    std::fs::write(&file, joined.to_string()).unwrap();
    world.start_site("leiden");
    world.all_connected();
    // There is no other way in than the tunnel; UDP was tried first.
    let mut packet = [0; 1_500];
    assert!(hole.recv(&mut packet).unwrap() > 0);
    let job = "epsilon = 0.5\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 2\n[params]\ncatalogue = \"panel\"\n\
               slices = [[\"8\", 1, 150_000_000]]\n";
    let status = world.ended(&world.submitted("allele-frequency", job));
    assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
    for (what, pid) in world.pids().into_iter().filter(|(what, _)| what.starts_with("site")) {
        assert_eq!(reachable(pid), Vec::<String>::new(), "{what}");
    }
    // The coordinator dies, and its tunnels with it: the site is back by itself.
    world.kill_coordinator();
    let settings = world.dir().join("coordinator/coordinator.toml");
    let text =
        std::fs::read_to_string(&settings).unwrap().replace("tunnel = \"127.0.0.1:0\"", &format!("tunnel = \"{tunnel}\""));
    std::fs::write(&settings, text).unwrap();
    world.start_coordinator();
    world.all_connected();
}

/// A network namespace with one cable, whose other end is here: it reaches this end and nothing else.
struct Namespace {
    name: String,
    /// Its address, and that of this end.
    inner: Ipv4Addr,
    outer: Ipv4Addr,
}

/// Whether the command did what it was asked to.
fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

impl Namespace {
    /// The `number`th of this process; none where namespaces may not be made.
    fn new(number: u8) -> Option<Self> {
        let name = format!("vst{}n{number}", std::process::id());
        if !ip(&["netns", "add", &name]) {
            return None;
        }
        // Benchmarking addresses (RFC 2544): nobody routes them.
        let id = u8::try_from(std::process::id() % 199).unwrap() + 1;
        let made =
            Self { name, inner: Ipv4Addr::new(198, 18, id, number * 4 + 2), outer: Ipv4Addr::new(198, 18, id, number * 4 + 1) };
        let (cable, inner, outer) = (made.cable(), format!("{}/30", made.inner), format!("{}/30", made.outer));
        let within = |arguments: &[&str]| ip(&[&["-n", &made.name], arguments].concat());
        let ready = ip(&["link", "add", &cable, "type", "veth", "peer", "name", "cable", "netns", &made.name])
            && ip(&["addr", "add", &outer, "dev", &cable])
            && ip(&["link", "set", &cable, "up"])
            && within(&["addr", "add", &inner, "dev", "cable"])
            && within(&["link", "set", "cable", "up"])
            && within(&["link", "set", "lo", "up"]);
        ready.then_some(made)
    }

    /// The name of the end that is here.
    fn cable(&self) -> String {
        self.name.replacen("vst", "vc", 1)
    }

    /// What listens in it, by the kernel's own list; UDP sockets on ephemeral ports, which sites dial from, are left out.
    fn listening(&self) -> Vec<String> {
        let shown =
            Command::new("ip").args(["netns", "exec", &self.name, "ss", "-H", "-l", "-n", "-t", "-u"]).output().unwrap();
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        let text = String::from_utf8(shown.stdout).unwrap();
        let port = |line: &str| line.split_whitespace().nth(4)?.rsplit(':').next()?.parse::<u16>().ok();
        let dials = |line: &&str| line.starts_with("udp") && port(line).is_some_and(|port| port >= 32_768);
        text.lines().filter(|line| !dials(line)).map(str::to_owned).collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["link", "del", &self.cable()]);
        ip(&["netns", "del", &self.name]);
    }
}

#[test]
fn three_sites_in_networks_of_their_own_only_dial_out_and_come_back() {
    let sites = ["bogota", "kyoto", "leiden"];
    let spaces: Vec<Namespace> = (0..4).map_while(Namespace::new).collect();
    let [of_coordinator, of_sites @ ..] = spaces.as_slice() else {
        return eprintln!("skipped: network namespaces may not be made here (`ip netns add`)");
    };
    assert_eq!(of_sites.len(), 3, "one namespace could be made, and the others not");
    let mut world = World::new(&sites);
    for site in sites {
        world.kill_site(site);
    }
    world.kill_coordinator();
    world.place("coordinator", &of_coordinator.name);
    world.listen(of_coordinator.inner);
    world.start_coordinator();
    // In between: 5 % of the packets are lost, the others 150 ms late, each way.
    let network = Network::to(world.quic(), Ipv4Addr::UNSPECIFIED.into());
    for (site, space) in sites.into_iter().zip(of_sites) {
        world.place(site, &space.name);
        dials(&world, site, SocketAddr::from((space.outer, network.address.port())));
        world.start_site(site);
    }
    world.all_connected();
    let status = world.ended(&world.submitted("linear-association", JOB));
    assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
    for space in of_sites {
        assert_eq!(space.listening(), Vec::<String>::new(), "nothing listens at a site");
    }
    assert!(!of_coordinator.listening().is_empty(), "the search finds what listens");
    for (what, pid) in world.pids().into_iter().filter(|(what, _)| what.starts_with("site")) {
        assert_eq!(reachable(pid), Vec::<String>::new(), "{what}");
    }
    // One site's cable is pulled out; a job waits for it; the cable is put in again, and nobody does anything else.
    let cable = of_sites[2].cable();
    assert!(ip(&["link", "set", &cable, "down"]));
    world.connected(2);
    let waiting = world.submitted("linear-association", &JOB.replace("0.5", "0.6"));
    assert!(ip(&["link", "set", &cable, "up"]));
    world.all_connected();
    let status = world.ended(&waiting);
    assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
    for site in sites {
        wait("the site's log", || (world.ok(&["log", "verify", site])["releases"] == 4).then_some(()));
    }
}
