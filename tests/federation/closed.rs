//! Processes that hold keys are closed to others of their user, and still do all that they must;
//! shipped units are as closed as they say.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::world::{BINARY, root, wait};

/// A user who is nobody else: root reads everything, so that root's tests are done as this user.
const NOBODY: u32 = 65_534;

/// A program as a user who is not root, with the binary and a folder where they can reach them.
struct Plain {
    temp: tempfile::TempDir,
    uid: Option<u32>,
}

impl Plain {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid().is_root().then_some(NOBODY);
        std::fs::copy(BINARY, temp.path().join("vestibule")).unwrap();
        let demo = root().join("cli/demo-data");
        for file in ["DATASET.toml", "dictionary.toml", "panel.catalogue.tsv", "leiden/people.csv", "leiden/genotypes.vcf.gz"] {
            let name = Path::new(file).file_name().unwrap();
            std::fs::copy(demo.join(file), temp.path().join(name)).unwrap();
        }
        if let Some(uid) = uid {
            let paths = std::fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().path());
            for path in paths.chain([temp.path().to_owned()]) {
                std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
            }
        }
        Self { temp, uid }
    }

    fn dir(&self) -> &Path {
        self.temp.path()
    }

    /// In a shell that lets processes leave as large a core as they may.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -c unlimited 2>/dev/null || ulimit -c $(ulimit -H -c); exec \"$0\" \"$@\"", program]);
        command.args(arguments).current_dir(self.dir()).env("HOME", self.dir()).stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command("./vestibule", arguments).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Whether a process of the same user can read a file.
    fn reads(&self, path: &str) -> bool {
        self.command("head", &["-c", "1", path]).output().unwrap().status.success()
    }

    fn cores(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"))).collect()
    }
}

/// As a daemon that aborts: what a coordinator holds is its key.
#[test]
fn a_daemon_leaves_no_core_and_nobody_of_its_user_reads_its_memory() {
    let plain = Plain::new();
    plain.ok(&["coordinator", "init", "coordinator"]);
    let settings = plain.dir().join("coordinator/coordinator.toml");
    std::fs::write(&settings, "quic = \"127.0.0.1:0\"\napi = \"127.0.0.1:0\"\n").unwrap();
    let mut daemon = plain.command("./vestibule", &["coordinator", "run", "coordinator"]);
    let mut daemon = daemon.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait("the coordinator", || plain.dir().join("coordinator/run/addresses.json").exists().then_some(()));
    // What the same user does to a process that is not closed.
    let mut open = plain.command("sleep", &["600"]).spawn().unwrap();
    let running = |id: u32| std::fs::read(format!("/proc/{id}/comm")).is_ok_and(|name| name == b"sleep\n");
    wait("a process", || running(open.id()).then_some(()));
    assert!(plain.reads(&format!("/proc/{}/environ", open.id())), "the test itself reads nothing");
    for file in ["environ", "maps", "mem", "auxv"] {
        assert!(!plain.reads(&format!("/proc/{}/{file}", daemon.id())), "{file} is read");
    }
    let abort = |id: u32| assert!(Command::new("kill").args(["-ABRT", &id.to_string()]).status().unwrap().success());
    abort(open.id());
    let open = open.wait().unwrap();
    let known = plain.cores();
    abort(daemon.id());
    let ended = daemon.wait().unwrap();
    assert_eq!((ended.signal(), ended.core_dumped(), plain.cores()), (Some(6), false, known));
    if !open.core_dumped() {
        eprintln!("this machine lets no process of this user dump core: that a closed one does not shows little");
    }
}

/// Not dumpable, `/proc/self` is root's: what is needed of it is there all the same. Importers are
/// started by it, and ingest reads by it.
#[test]
fn a_user_who_is_not_root_does_all_that_needs_a_process_of_ones_own() {
    let plain = Plain::new();
    plain.ok(&["site", "init", "site"]);
    plain.ok(&["site", "ingest", "site", "DATASET.toml"]);
    let said = plain.run(&["--json", "log", "show", "site"]);
    let lines: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let uid = plain.uid.unwrap_or_else(|| rustix::process::getuid().as_raw());
    assert_eq!(lines[0]["details"]["uid"], uid, "who gave the command: {lines}");
}

/// Of 10, where systemd can say so.
#[test]
fn shipped_units_are_as_closed_as_is_said() {
    for unit in ["site", "coordinator", "witness"] {
        let file = root().join(format!("packaging/systemd/vestibule-{unit}.service"));
        let text = std::fs::read_to_string(&file).unwrap();
        for line in ["LimitCORE=0", "MemorySwapMax=0", "NoNewPrivileges=yes", "ProtectSystem=strict", "KillMode=mixed"] {
            assert!(text.lines().any(|found| found == line), "{unit}: {line}");
        }
        let arguments = ["security", "--offline=true", "--threshold=20", "--no-pager"];
        match Command::new("systemd-analyze").args(arguments).arg(&file).output() {
            Ok(said) => assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout)),
            Err(error) => eprintln!("how closed the {unit}'s unit is was not reckoned: systemd-analyze: {error}"),
        }
    }
}
