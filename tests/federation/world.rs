//! A federation in a temporary folder. Everything is asked of the built binary, and its daemons are its processes.

#![allow(dead_code, reason = "tests and benches each use a part of it")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_vestibule");

/// Importers, as a site has them.
pub(crate) fn importers() -> vestibule_runtime::dataset::Importers {
    vestibule_runtime::dataset::Importers::new(vestibule_worker::Launch::importer_of(BINARY.into()), false)
}
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// An example analysis, built once for all tests.
pub(crate) fn component(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let dir = BUILT.get_or_init(|| {
        let dir = root().join("target/test-components");
        std::fs::create_dir_all(&dir).unwrap();
        for name in
            ["cohort-summary", "allele-frequency", "linear-association", "logistic-regression", "median-regression", "hostile"]
        {
            let (source, out) = (root().join("guest-examples").join(name), dir.join(format!("{name}.wasm")));
            let built = run(Path::new("."), &["analysis", "build", source.to_str().unwrap(), "-o", out.to_str().unwrap()]);
            assert!(built.status.success(), "{name}: {}", String::from_utf8_lossy(&built.stderr));
        }
        dir
    });
    dir.join(format!("{name}.wasm"))
}

pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    let cache = root().join("target/test-cache");
    Command::new(BINARY).args(arguments).current_dir(dir).env("XDG_CACHE_HOME", cache).stdin(Stdio::null()).output().unwrap()
}

/// Asks again and again until there is an answer.
pub(crate) fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(found) = ask() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited {} s for {what}", PATIENCE.as_secs());
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct World {
    temp: tempfile::TempDir,
    coordinator: Option<Daemon>,
    sites: Vec<(String, Option<Daemon>)>,
    api: String,
    log: &'static str,
    /// The network namespaces of daemons that have one.
    places: HashMap<String, String>,
}

impl World {
    /// A coordinator, a researcher `ada` whom all sites accept, and sites with the demo's data.
    pub(crate) fn new(sites: &[&str]) -> Self {
        Self::witnessed(sites, usize::from(sites.len() > 1))
    }

    /// The same, where that many other sites must cosign a site's log.
    pub(crate) fn witnessed(sites: &[&str], witnesses: usize) -> Self {
        let mut world = Self {
            temp: tempfile::tempdir().unwrap(),
            coordinator: None,
            sites: vec![],
            api: String::new(),
            log: "info",
            places: HashMap::new(),
        };
        world.ok(&["coordinator", "init", "coordinator"]);
        for root in ["root-1.pem", "root-2.pem"] {
            world.ok(&["key", "new", root]);
        }
        let witnesses = witnesses.to_string();
        let roots = ["--root", "root-1.pem.pub", "--root", "root-2.pem.pub", "--threshold", "2", "--witnesses", &witnesses];
        let made = world.ok(&[&["consortium", "new", "consortium", "--name", "test"], roots.as_slice()].concat());
        world.ok(&["coordinator", "pin", "coordinator", made["fingerprint"].as_str().unwrap()]);
        world.settings("127.0.0.1:0", "127.0.0.1:0");
        world.start_coordinator();
        // From now on the same ports: a coordinator that comes back is found where it was.
        let addresses = world.addresses().unwrap();
        let (quic, api) = (addresses["quic"].as_str().unwrap(), addresses["api"].as_str().unwrap());
        world.settings(quic, api.trim_start_matches("http://"));
        world.api = api.to_owned();
        world.ok(&["key", "new", "ada.pem"]);
        let token = world.ok(&["coordinator", "invite", "coordinator", "researcher", "ada"]);
        world.ok(&[
            "researcher",
            "join",
            token["token"].as_str().unwrap(),
            "--key",
            "ada.pem",
            "--organisation",
            "test",
            "--country",
            "NL",
        ]);
        world.charter("project", "epsilon = 50.0", if sites.is_empty() { &["nobody"] } else { sites });
        for site in sites {
            world.add_site(site);
        }
        world.issue();
        world.all_connected();
        world
    }

    /// A charter of ada's, `NAME.json`, that leaves everything open but its budget: a line or two of its file.
    pub(crate) fn charter(&self, name: &str, budget: &str, sites: &[&str]) {
        let ada = vestibule_key(self.dir()).public().to_string();
        let text = format!(
            "project = {name:?}\ntitle = \"A test\"\nsummary = \"Whether it holds.\"\nlead = {ada:?}\nmembers = [{ada:?}]\n\
             sites = {sites:?}\ndatasets = [\"cohort\"]\ncolumns = [\"*\"]\ncatalogues = [\"*\"]\ncomponents = [\"*\"]\n{budget}\n\
             delta = 1e-6\nfrom = \"2020-01-01\"\nuntil = \"2100-01-01\"\noutputs = \"tables\"\nfunding = \"none\"\n\
             [purpose]\nresearch = \"DUO:0000037\"\n"
        );
        std::fs::write(self.dir().join(format!("{name}.toml")), text).unwrap();
        self.ok(&["charter", "sign", &format!("{name}.toml"), "--key", "ada.pem"]);
    }

    /// An approver with a key `NAME.pem`, who is in the consortium once that is issued.
    pub(crate) fn approver(&self, name: &str, organisation: &str) {
        let key = format!("{name}.pem");
        self.ok(&["key", "new", &key]);
        let token = self.ok(&["coordinator", "invite", "coordinator", "approver", name]);
        let token = token["token"].as_str().unwrap();
        self.ok(&["approver", "join", token, "--key", &key, "--organisation", organisation, "--country", "NL"]);
    }

    /// Anyone who has joined is in the consortium from now on.
    pub(crate) fn issue(&self) {
        let requests = self.ok(&["coordinator", "requests", "coordinator"]);
        std::fs::write(self.dir().join("requests.json"), requests.to_string()).unwrap();
        self.ok(&["consortium", "add", "consortium", "requests.json"]);
        self.ok(&["consortium", "issue", "consortium", "--key", "root-1.pem"]);
        self.ok(&["consortium", "sign", "consortium", "--key", "root-2.pem"]);
        self.ok(&["coordinator", "publish", "coordinator", "consortium/bundle.json"]);
    }

    pub(crate) fn add_site(&mut self, site: &str) {
        let source = self.dir().join(format!("{site}-source"));
        std::fs::create_dir_all(&source).unwrap();
        let data = root().join("cli/demo-data");
        for file in ["DATASET.toml", "dictionary.toml", "panel.catalogue.tsv"] {
            std::fs::copy(data.join(file), source.join(file)).unwrap();
        }
        for file in ["people.csv", "genotypes.vcf.gz"] {
            // Where there are more sites than the demo has, the same people are at several.
            std::fs::copy(data.join(site.trim_end_matches(char::is_numeric)).join(file), source.join(file)).unwrap();
        }
        self.ok(&["site", "init", site]);
        self.set_site(site, "");
        self.ok(&["site", "ingest", site, &format!("{site}-source/DATASET.toml")]);
        self.ok(&["site", "charter", "accept", site, "project.json"]);
        let token = self.ok(&["coordinator", "invite", "coordinator", "site", site]);
        self.ok(&["site", "join", site, token["token"].as_str().unwrap(), "--organisation", "test", "--country", "NL"]);
        self.sites.push((site.to_owned(), None));
        self.start_site(site);
    }

    /// A site's settings. Releases leave at once where nothing else is said: tests of what they say need not wait.
    pub(crate) fn set_site(&self, site: &str, settings: &str) {
        let at_once = "[slowest]\nassume_for_tests = true\n";
        let whole = if settings.contains("[slowest]") { settings.to_owned() } else { format!("{settings}{at_once}") };
        std::fs::write(self.dir().join(site).join("site.toml"), whole).unwrap();
    }

    /// The folder of the one version that is left of a site's dataset.
    pub(crate) fn version(&self, site: &str) -> PathBuf {
        let folders = std::fs::read_dir(self.dir().join(site).join("data/cohort")).unwrap().map(|entry| entry.unwrap());
        let versions: Vec<_> = folders.filter(|entry| entry.file_type().unwrap().is_dir()).collect();
        assert_eq!(versions.len(), 1, "{versions:?}");
        versions[0].path()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.temp.path()
    }

    fn settings(&self, quic: &str, api: &str) {
        let text = format!("quic = \"{quic}\"\napi = \"{api}\"\n");
        std::fs::write(self.dir().join("coordinator/coordinator.toml"), text).unwrap();
    }

    /// From its next start on, a daemon runs in that network namespace.
    pub(crate) fn place(&mut self, folder: &str, namespace: &str) {
        self.places.insert(folder.to_owned(), namespace.to_owned());
    }

    /// From its next start on, the coordinator listens at that address.
    pub(crate) fn listen(&mut self, address: std::net::Ipv4Addr) {
        // The ports that it had are free there as here.
        let (quic, api) = (self.quic().port(), self.api_address().port());
        self.settings(&format!("{address}:{quic}"), &format!("{address}:{api}"));
        self.api = format!("http://{address}:{api}");
    }

    fn addresses(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.dir().join("coordinator/run/addresses.json")).ok()?).ok()
    }

    fn daemon(&self, arguments: &[&str]) -> Daemon {
        let log = std::fs::File::options().create(true).append(true).open(self.dir().join("log.txt")).unwrap();
        let mut command = match arguments.last().and_then(|folder| self.places.get(*folder)) {
            // It runs the program in its own place: the process id stays.
            Some(place) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", place, BINARY]);
                command
            }
            None => Command::new(BINARY),
        };
        let command = command
            .args(arguments)
            .current_dir(self.dir())
            .env("VESTIBULE_LOG", self.log)
            .env("VESTIBULE_ASSUME_COSTS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Daemon(command.unwrap())
    }

    pub(crate) fn start_coordinator(&mut self) {
        let _ = std::fs::remove_file(self.dir().join("coordinator/run/addresses.json"));
        self.coordinator = Some(self.daemon(&["coordinator", "run", "coordinator"]));
        wait("the coordinator", || self.addresses());
    }

    /// From the next start on, daemons log all that any part of them would, but for the compiler, which sees no data and says most.
    pub(crate) fn log_everything(&mut self) {
        self.log =
            "trace,cranelift=off,cranelift_codegen=off,cranelift_frontend=off,regalloc2=off,wasmtime_internal_cranelift=off";
    }

    /// SIGKILL.
    pub(crate) fn kill_coordinator(&mut self) {
        self.coordinator = None;
    }

    pub(crate) fn start_site(&mut self, site: &str) {
        let daemon = self.daemon(&["site", "run", site]);
        self.sites.iter_mut().find(|(name, _)| name == site).unwrap().1 = Some(daemon);
    }

    /// A stopped site runs from another folder from now on.
    pub(crate) fn rename_site(&mut self, site: &str, folder: &str) {
        folder.clone_into(&mut self.sites.iter_mut().find(|(name, _)| name == site).unwrap().0);
    }

    /// SIGKILL.
    pub(crate) fn kill_site(&mut self, site: &str) {
        self.sites.iter_mut().find(|(name, _)| name == site).unwrap().1 = None;
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn stop_site(&mut self, site: &str) {
        let mut daemon = self.sites.iter_mut().find(|(name, _)| name == site).unwrap().1.take().unwrap();
        let sent = Command::new("kill").args(["-TERM", &daemon.0.id().to_string()]).status().unwrap();
        assert!(sent.success() && daemon.0.wait().unwrap().success(), "{}", self.log());
    }

    pub(crate) fn all_connected(&self) {
        self.connected(self.sites.len());
    }

    /// Waits until the coordinator knows that many sites to be connected.
    pub(crate) fn connected(&self, wanted: usize) {
        // Sites are listed to researchers; a job that is refused for an unknown site would say so.
        wait("the sites", || {
            let connected = self.listed()?.as_array()?.iter().filter(|site| site["connected"] == true).count();
            (connected == wanted).then_some(())
        });
    }

    /// The sites, as researchers see them.
    pub(crate) fn sites(&self) -> Value {
        wait("the list of sites", || self.listed())
    }

    fn listed(&self) -> Option<Value> {
        let header = self.authorize("ada", "GET", "/v1/sites", b"");
        let answer = ureq::get(format!("{}/v1/sites", self.api)).header("authorization", header).call().ok()?;
        serde_json::from_str(&answer.into_body().read_to_string().ok()?).ok()
    }

    /// Runs a command with `--json`: its exit code and document.
    pub(crate) fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = run(self.dir(), &[&["--json"], arguments].concat());
        let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().unwrap(), document)
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> Value {
        let (code, document) = self.json(arguments);
        assert_eq!(code, 0, "{arguments:?}: {document}\n{}", self.log());
        document
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("log.txt")).unwrap_or_default()
    }

    /// The API's URL.
    pub(crate) fn api(&self) -> String {
        self.api.clone()
    }

    /// Where the API listens.
    pub(crate) fn api_address(&self) -> std::net::SocketAddr {
        self.api.trim_start_matches("http://").parse().unwrap()
    }

    /// From now on, sites can come through TLS too. Where.
    pub(crate) fn open_tunnels(&mut self) -> std::net::SocketAddr {
        let file = self.dir().join("coordinator/coordinator.toml");
        let settings = std::fs::read_to_string(&file).unwrap();
        self.kill_coordinator();
        std::fs::write(&file, format!("{settings}tunnel = \"127.0.0.1:0\"\n")).unwrap();
        self.start_coordinator();
        self.addresses().unwrap()["tunnel"].as_str().unwrap().parse().unwrap()
    }

    /// Where sites dial.
    pub(crate) fn quic(&self) -> std::net::SocketAddr {
        self.addresses().unwrap()["quic"].as_str().unwrap().parse().unwrap()
    }

    /// A call of the API that the command line would not make: its status and answer.
    pub(crate) fn call(&self, person: &str, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let header = self.authorize(person, method, path, body);
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.api));
        let answer = agent.run(request.header("authorization", header).body(body).unwrap()).unwrap();
        (answer.status().as_u16(), answer.into_body().read_to_vec().unwrap())
    }

    /// The same, where the answer is a document.
    pub(crate) fn document(&self, person: &str, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let (status, answer) = self.call(person, method, path, body);
        (status, serde_json::from_slice(&answer).unwrap())
    }

    /// A person's key, `NAME.pem`.
    pub(crate) fn key(&self, person: &str) -> vestibule_protocol::key::SecretKey {
        let text = std::fs::read_to_string(self.dir().join(format!("{person}.pem"))).unwrap();
        vestibule_protocol::key::SecretKey::from_pem(&text, None).unwrap()
    }

    /// What a person says of a call.
    pub(crate) fn authorize(&self, person: &str, method: &str, path: &str, body: &[u8]) -> String {
        let key = self.key(person);
        let coordinator = std::fs::read_to_string(self.dir().join("ada.pem.coordinator")).unwrap();
        let coordinator = coordinator.trim().parse().unwrap();
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).unwrap();
        vestibule_protocol::request::Call { coordinator: &coordinator, method, path }.authorize(body, now(), nonce, &key)
    }

    pub(crate) fn job(&self, arguments: &[&str]) -> (i32, Value) {
        self.json(&[&["job"], arguments, &["--key", "ada.pem", "--coordinator", &self.api]].concat())
    }

    /// Writes a job file beside its component and submits it.
    pub(crate) fn submit(&self, analysis: &str, toml: &str) -> (i32, Value) {
        std::fs::copy(component(analysis), self.dir().join(format!("{analysis}.wasm"))).unwrap();
        let charter = if toml.contains("charter =") { "" } else { "charter = \"project.json\"\n" };
        let text = format!("{charter}analysis = \"{analysis}.wasm\"\ndataset = \"cohort\"\n{toml}");
        std::fs::write(self.dir().join("job.toml"), text).unwrap();
        self.job(&["submit", "job.toml"])
    }

    /// Writes a job file beside a component that was submitted before, submits it and waits for its result.
    pub(crate) fn submit_and_wait(&self, analysis: &str, toml: &str) -> (i32, Value) {
        let charter = if toml.contains("charter =") { "" } else { "charter = \"project.json\"\n" };
        let text = format!("{charter}analysis = \"{analysis}.wasm\"\ndataset = \"cohort\"\n{toml}");
        std::fs::write(self.dir().join("job.toml"), text).unwrap();
        self.job(&["submit", "job.toml", "--wait"])
    }

    /// A site's ledger, to look into: `unseal` opens its records.
    pub(crate) fn ledger(&self, site: &str) -> rusqlite::Connection {
        let dir = self.dir().join(site);
        let seal = vestibule_runtime::home::seal_of(&dir, None, None).unwrap();
        vestibule_runtime::log::Source::new(dir.join("ledger.sqlite"), seal).into_connection().unwrap()
    }

    /// The daemons' process ids.
    pub(crate) fn pids(&self) -> Vec<(String, u32)> {
        let coordinator = self.coordinator.iter().map(|daemon| ("coordinator".to_owned(), daemon.0.id()));
        let sites = self.sites.iter().filter_map(|(name, daemon)| Some((format!("site {name}"), daemon.as_ref()?.0.id())));
        coordinator.chain(sites).collect()
    }

    pub(crate) fn submitted(&self, analysis: &str, toml: &str) -> String {
        let (code, document) = self.submit(analysis, toml);
        assert_eq!(code, 0, "{document}\n{}", self.log());
        document["job"].as_str().unwrap().to_owned()
    }

    /// The job's status once it has ended.
    pub(crate) fn ended(&self, job: &str) -> Value {
        wait("the job's end", || {
            let (code, status) = self.job(&["status", job]);
            (code == 0 && status["state"] != "running").then_some(status)
        })
    }
}

pub(crate) fn vestibule_key(dir: &Path) -> vestibule_protocol::key::SecretKey {
    vestibule_protocol::key::SecretKey::from_pem(&std::fs::read_to_string(dir.join("ada.pem")).unwrap(), None).unwrap()
}

pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}
