//! A Slurm of one node on this machine: munged, slurmctld and slurmd of the distribution, with a configuration, ports and folders of their own.
//! All of it is gone when it is dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::world::wait;

pub(crate) struct Cluster {
    // Dropped in this order: node, controller, authentication, files.
    daemons: Vec<Child>,
    temp: tempfile::TempDir,
}

const DAEMONS: [&str; 3] = ["munged", "slurmctld", "slurmd"];

impl Cluster {
    /// `None` where Slurm is not installed, which is said; where `VESTIBULE_SLURM` says that it must be, that is a failure.
    pub(crate) fn start() -> Option<Self> {
        let found = |daemon: &&str| Path::new("/usr/sbin").join(daemon).exists();
        if let Some(missing) = DAEMONS.iter().find(|daemon| !found(daemon)) {
            assert!(
                std::env::var_os("VESTIBULE_SLURM").is_none(),
                "{missing} is not installed: apt-get install slurm-wlm munge"
            );
            eprintln!("skipped: {missing} is not installed (slurm-wlm, munge)");
            return None;
        }
        let temp = tempfile::Builder::new().prefix("slurm").tempdir().unwrap();
        // munge wants that its socket can be reached by everybody.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(temp.path(), open).unwrap();
        for folder in ["state", "spool", "shared"] {
            std::fs::create_dir(temp.path().join(folder)).unwrap();
        }
        let mut cluster = Self { daemons: vec![], temp };
        cluster.authenticate();
        std::fs::write(cluster.configuration(), cluster.settings()).unwrap();
        let configuration = cluster.configuration();
        cluster.daemon("slurmctld", &["-D", "-f", configuration.to_str().unwrap()]);
        cluster.daemon("slurmd", &["-D", "-f", configuration.to_str().unwrap()]);
        wait("Slurm's node", || (cluster.command("sinfo", &["-h", "-o", "%T"])? == "idle\n").then_some(()));
        Some(cluster)
    }

    fn authenticate(&mut self) {
        let path = |name: &str| self.temp.path().join(name).to_str().unwrap().to_owned();
        let key: [u8; 128] = std::array::from_fn(|_| rand());
        std::fs::write(path("munge.key"), key).unwrap();
        std::fs::set_permissions(path("munge.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let of = |name: &str, file: &str| format!("--{name}={}", path(file));
        let files = [
            of("key-file", "munge.key"),
            of("socket", "munge.socket"),
            of("pid-file", "munged.pid"),
            of("log-file", "munged.log"),
            of("seed-file", "munge.seed"),
        ];
        let arguments: Vec<&str> =
            ["--foreground", "--force", "--num-threads=2"].into_iter().chain(files.iter().map(String::as_str)).collect();
        self.daemon("munged", &arguments);
        let socket = self.temp.path().join("munge.socket");
        wait("munged", || socket.exists().then_some(()));
    }

    fn settings(&self) -> String {
        let host = Command::new("hostname").arg("-s").output().unwrap().stdout;
        let host = String::from_utf8(host).unwrap();
        let (host, folder) = (host.trim(), self.temp.path().display());
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap();
        let user = user.trim();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (controller, node) = (port(), port());
        format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={controller}\nSlurmdPort={node}\nSlurmUser={user}\nSlurmdUser={user}\n\
             AuthType=auth/munge\nAuthInfo=socket={folder}/munge.socket,cred_expire=5\nCredType=cred/munge\n\
             StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool\n\
             SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.pid\n\
             SlurmctldLogFile={folder}/slurmctld.log\nSlurmdLogFile={folder}/slurmd.log\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\n\
             SwitchType=switch/none\nMpiDefault=none\nJobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\n\
             ReturnToService=2\nKillWait=1\nMinJobAge=10\nSchedulerParameters=sched_min_interval=0,batch_sched_delay=0\n\
             SlurmdParameters=config_overrides\nNodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000 State=UNKNOWN\n\
             PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP\n"
        )
    }

    fn daemon(&mut self, name: &str, arguments: &[&str]) {
        let log = std::fs::File::create(self.temp.path().join(format!("{name}.out"))).unwrap();
        let mut command = Command::new(Path::new("/usr/sbin").join(name));
        command.args(arguments).env("SLURM_CONF", self.configuration()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // So that what a daemon has started ends with it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.daemons.insert(0, command.spawn().unwrap());
    }

    /// `SLURM_CONF`.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.temp.path().join("slurm.conf")
    }

    /// A folder that all nodes see.
    pub(crate) fn shared(&self) -> PathBuf {
        self.temp.path().join("shared")
    }

    /// One of Slurm's commands: what it prints, where it does what it was told.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let output = Command::new(program)
            .args(arguments)
            .env("SLURM_CONF", self.configuration())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Tasks in the queue: the array's id, the number in it, the state, the job's name.
    pub(crate) fn queue(&self) -> Vec<(String, u32, String, String)> {
        let lines = self.command("squeue", &["-h", "-r", "-o", "%F %K %T %j"]).unwrap();
        let line = |line: &str| {
            let [id, task, state, name] = line.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
            let task: &str = task;
            (String::from(id), task.parse().unwrap_or(u32::MAX), String::from(state), String::from(name))
        };
        lines.lines().map(line).collect()
    }

    /// Waits until a task runs, and has read its round's rows: the id of its job.
    pub(crate) fn running(&self, task: u32) -> String {
        wait("a task to run", || {
            let found = self.queue().into_iter().find(|(_, number, state, _)| *number == task && state == "RUNNING");
            found.map(|(id, ..)| id)
        })
    }

    /// Waits until nothing is in the queue, and no round's folder is left.
    pub(crate) fn empty(&self) {
        wait("an empty queue", || self.queue().is_empty().then_some(()));
        let left: Vec<_> = std::fs::read_dir(self.shared()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name == "lock"), "{left:?}");
    }
}

fn rand() -> u8 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0).to_le_bytes()[0]
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A node that still runs tasks ends them first.
        let _ = self.command("scancel", &["--state=RUNNING", "--quiet", "--signal=KILL", "--full", "--user=root"]);
        for daemon in &mut self.daemons {
            let group = format!("-{}", daemon.id());
            let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
            let start = std::time::Instant::now();
            while daemon.try_wait().is_ok_and(|ended| ended.is_none()) && start.elapsed().as_secs() < 5 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
            let _ = daemon.wait();
        }
    }
}
