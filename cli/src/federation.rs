//! A whole federation on this machine, for the demo and the attacks: daemons are processes of this same binary, with folders and keys
//! of their own, and talk QUIC on loopback.
//!
//! *In*: a folder; sites' data. *Out*: what its commands answer. *Stops*: all daemons, when it is dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::failure::Failure;

/// How long anything that normally takes a second may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose everything here is.
const WHOSE: [&str; 4] = ["--organisation", "demo", "--country", "NL"];

/// A daemon that ends with this value.
struct Daemon {
    name: String,
    process: Child,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing more to do about it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The running federation. Its researcher is `ada`, whose key is `ada.pem`.
pub(crate) struct Federation {
    dir: PathBuf,
    log: std::fs::File,
    daemons: Vec<Daemon>,
    api: String,
    logging: Option<&'static str>,
    cores: bool,
}

/// The project's folder: where this binary was built from, or the current one.
pub(crate) fn source_root() -> Result<PathBuf> {
    let candidates =
        [std::env::var_os("CARGO_MANIFEST_DIR").map(|dir| PathBuf::from(dir).join("..")), std::env::current_dir().ok()];
    let found = candidates.into_iter().flatten().find(|dir| dir.join("cli/demo-data/truth.tsv").exists());
    found.ok_or_else(|| {
        Failure::input("demo-data-missing", "run this from the project's folder, where its example analyses are")
    })
}

impl Federation {
    /// A consortium of two roots, a coordinator and a researcher. `witnesses` other sites must cosign a site's log.
    pub(crate) fn start(dir: &Path, witnesses: u32) -> Result<Self> {
        let log = std::fs::File::create(dir.join("log.txt"))?;
        let mut federation =
            Self { dir: dir.to_owned(), log, daemons: vec![], api: String::new(), logging: None, cores: false };
        federation.vestibule(&["coordinator", "init", "coordinator"])?;
        for root in ["root-1.pem", "root-2.pem"] {
            federation.vestibule(&["key", "new", root])?;
        }
        let roots =
            ["--root", "root-1.pem.pub", "--root", "root-2.pem.pub", "--threshold", "2", "--witnesses", &witnesses.to_string()];
        let made =
            federation.vestibule(&[&["consortium", "new", "consortium", "--name", "demo"], roots.as_slice()].concat())?;
        let fingerprint = made.get("fingerprint").and_then(Value::as_str).context("a consortium without a fingerprint")?;
        federation.vestibule(&["coordinator", "pin", "coordinator", fingerprint])?;
        let settings = federation.dir.join("coordinator/coordinator.toml");
        std::fs::write(&settings, "quic = \"127.0.0.1:0\"\napi = \"127.0.0.1:0\"\n")?;
        federation.daemon("coordinator", &["coordinator", "run", "coordinator"])?;
        federation.api = federation.addresses()?;
        federation.researcher("ada")?;
        Ok(federation)
    }

    /// What daemons that are started from now on log.
    pub(crate) const fn logging(mut self, what: &'static str) -> Self {
        self.logging = Some(what);
        self
    }

    /// Daemons that are started from now on may leave cores, as far as they let that be.
    pub(crate) const fn with_cores(mut self) -> Self {
        self.cores = true;
        self
    }

    /// A further researcher, with the key `NAME.pem`.
    pub(crate) fn researcher(&self, name: &str) -> Result<()> {
        let key = format!("{name}.pem");
        self.vestibule(&["key", "new", &key])?;
        let token = self.token("researcher", name)?;
        self.vestibule(&[&["researcher", "join", &token, "--key", &key], WHOSE.as_slice()].concat())?;
        Ok(())
    }

    /// Anyone who has joined is in the consortium from now on: a new trust bundle, signed by both roots, published.
    pub(crate) fn issue(&self) -> Result<()> {
        let requests = self.vestibule(&["coordinator", "requests", "coordinator"])?;
        std::fs::write(self.dir.join("requests.json"), requests.to_string())?;
        self.vestibule(&["consortium", "add", "consortium", "requests.json"])?;
        self.vestibule(&["consortium", "issue", "consortium", "--key", "root-1.pem"])?;
        self.vestibule(&["consortium", "sign", "consortium", "--key", "root-2.pem"])?;
        self.vestibule(&["coordinator", "publish", "coordinator", "consortium/bundle.json"])?;
        Ok(())
    }

    /// A site with the demo's data of one of its places, all of whose settings but these are the defaults.
    pub(crate) fn demo_site(&mut self, site: &str, data: &Path, place: &str, settings: Option<&str>) -> Result<()> {
        let source = self.source(site)?;
        for file in ["DATASET.toml", "dictionary.toml", "panel.catalogue.tsv"] {
            std::fs::copy(data.join(file), source.join(file))?;
        }
        for file in ["people.csv", "genotypes.vcf.gz"] {
            std::fs::copy(data.join(place).join(file), source.join(file))?;
        }
        self.site(site, settings)
    }

    /// The folder in which a site's own files are to be.
    pub(crate) fn source(&self, site: &str) -> Result<PathBuf> {
        let source = self.dir.join(format!("{site}-source"));
        std::fs::create_dir_all(&source)?;
        Ok(source)
    }

    /// A charter of these researchers for these sites, signed by `ada`: `NAME.json`.
    pub(crate) fn charter(&self, name: &str, researchers: &[&str], sites: &[&str]) -> Result<()> {
        let key = |name: &str| Ok(crate::files::public_key(&self.dir.join(format!("{name}.pem.pub")))?.to_string());
        let members = researchers.iter().map(|name| key(name)).collect::<Result<Vec<String>>>()?;
        let text = format!(
            "project = {name:?}\ntitle = \"A demonstration\"\nsummary = \"What a federation on one machine can show.\"\n\
             lead = {:?}\nmembers = {members:?}\nsites = {sites:?}\ndatasets = [\"cohort\"]\ncolumns = [\"*\"]\ncatalogues = [\"*\"]\n\
             components = [\"*\"]\nepsilon = 50.0\ndelta = 1e-6\nfrom = \"2020-01-01\"\nuntil = \"2100-01-01\"\noutputs = \"tables\"\n\
             funding = \"none\"\n[purpose]\nresearch = \"DUO:0000037\"\n",
            key("ada")?
        );
        std::fs::write(self.dir.join(format!("{name}.toml")), text)?;
        self.vestibule(&["charter", "sign", &format!("{name}.toml"), "--key", "ada.pem"])?;
        Ok(())
    }

    /// A site that takes part in the charter `project`, with what lies in its [`Self::source`].
    pub(crate) fn site(&mut self, site: &str, settings: Option<&str>) -> Result<()> {
        self.vestibule(&["site", "init", site])?;
        if let Some(settings) = settings {
            std::fs::write(self.dir.join(site).join("site.toml"), settings)?;
        }
        self.vestibule(&["site", "ingest", site, &format!("{site}-source/DATASET.toml")])?;
        self.vestibule(&["site", "charter", "accept", site, "project.json"])?;
        let token = self.token("site", site)?;
        self.vestibule(&[&["site", "join", site, &token], WHOSE.as_slice()].concat())?;
        self.run_site(site)
    }

    /// Starts a site's daemon.
    pub(crate) fn run_site(&mut self, site: &str) -> Result<()> {
        self.daemon(site, &["site", "run", site])
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, name: &str) {
        self.daemons.retain(|daemon| daemon.name != name);
    }

    /// A daemon's process.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.daemons.iter().find(|daemon| daemon.name == name).map(|daemon| daemon.process.id())
    }

    /// A signal that ends a daemon, and the wait for that.
    pub(crate) fn end(&mut self, name: &str, signal: rustix::process::Signal) -> Result<std::process::ExitStatus> {
        let at = self.daemons.iter().position(|daemon| daemon.name == name).context("no such daemon")?;
        let mut daemon = self.daemons.remove(at);
        let pid = rustix::process::Pid::from_child(&daemon.process);
        rustix::process::kill_process(pid, signal)?;
        Ok(daemon.process.wait()?)
    }

    /// SIGKILL, all.
    pub(crate) fn stop(&mut self) {
        self.daemons.clear();
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let program = std::env::current_exe()?;
        let mut command = if self.cores {
            // Its soft limit is that of this process: none.
            let mut shell = Command::new("sh");
            shell.args(["-c", "ulimit -S -c $(ulimit -H -c); exec \"$0\" \"$@\""]).arg(program);
            shell
        } else {
            Command::new(program)
        };
        command.args(arguments).current_dir(&self.dir).stdin(Stdio::null()).stderr(self.log.try_clone()?);
        Ok(command)
    }

    /// Runs a command of this binary: whether it succeeded, and its document.
    pub(crate) fn asked(&self, arguments: &[&str]) -> Result<(bool, Value)> {
        let output = self.command(&[&["--json"], arguments].concat())?.output()?;
        Ok((output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_default()))
    }

    /// Runs a command of this binary that must succeed; its document.
    pub(crate) fn vestibule(&self, arguments: &[&str]) -> Result<Value> {
        let (success, document) = self.asked(arguments)?;
        if !success {
            bail!("`vestibule {}` failed: {document}; see {}", arguments.join(" "), self.dir.join("log.txt").display());
        }
        Ok(document)
    }

    fn daemon(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.command(arguments)?;
        if let Some(what) = self.logging {
            command.env("VESTIBULE_LOG", what);
        }
        // Where a site's settings ask for it, which those of demonstrations do not.
        command.env("VESTIBULE_ASSUME_COSTS", "1");
        let process = command.stdout(Stdio::null()).spawn()?;
        self.daemons.push(Daemon { name: name.to_owned(), process });
        Ok(())
    }

    fn token(&self, role: &str, name: &str) -> Result<String> {
        let document = self.vestibule(&["coordinator", "invite", "coordinator", role, name])?;
        Ok(document.get("token").and_then(Value::as_str).context("an invitation without a token")?.to_owned())
    }

    /// The API's URL, once the coordinator says it.
    fn addresses(&self) -> Result<String> {
        let path = self.dir.join("coordinator/run/addresses.json");
        wait("the coordinator", || {
            let document: Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            Some(document.get("api")?.as_str()?.to_owned())
        })
    }

    /// `ada`'s client.
    pub(crate) fn client(&self) -> Result<crate::client::Client> {
        crate::client::Client::open(&self.api, &self.dir.join("ada.pem"))
    }

    /// Takes all who joined into the consortium, and waits until that many sites are connected.
    pub(crate) fn connected(&self, sites: usize) -> Result<()> {
        self.issue()?;
        let client = self.client()?;
        wait("the sites", || {
            let found = client.sites().ok()?;
            (found.iter().filter(|site| site.connected).count() == sites).then_some(())
        })
    }

    /// A `job` command of a researcher's: whether it succeeded, and its document.
    pub(crate) fn job(&self, researcher: &str, arguments: &[&str]) -> Result<(bool, Value)> {
        let key = format!("{researcher}.pem");
        self.asked(&[&["job"], arguments, &["--key", &key, "--coordinator", &self.api]].concat())
    }

    /// Submits `ada`'s job, waits for its end, writes its page; its result.
    pub(crate) fn report(&self, name: &str, file: &str, sites: usize) -> Result<Value> {
        let toml = format!("{name}.toml");
        std::fs::write(
            self.dir.join(&toml),
            format!("charter = \"project.json\"\n{}", file.replace("MIN", &sites.to_string())),
        )?;
        let done = |(success, document): (bool, Value)| {
            if success { Ok(document) } else { bail!("the job failed: {document}; see {}", self.dir.join("log.txt").display()) }
        };
        let result = done(self.job("ada", &["submit", "--wait", &toml])?)?;
        let id = result.pointer("/status/job").and_then(Value::as_str).context("a result without a job")?.to_owned();
        done(self.job("ada", &["result", &id, "--html", &format!("{name}.html")])?)?;
        Ok(result)
    }
}

/// Asks again and again, with small pauses, until there is an answer.
pub(crate) fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(found) = ask() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("{what} did not come within {} s", PATIENCE.as_secs())
}
