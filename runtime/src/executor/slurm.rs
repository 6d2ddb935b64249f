//! Tasks as an array job of Slurm, by its commands: `sbatch`, `squeue`, `scancel`, with options that have been there since 20.x.
//!
//! *In*: a round's random name, its folder, what a task needs. *Out*: which tasks the queue has. *Trusts*: Slurm to run what it is given as the
//! site's own user. Scripts and environments are there for all its users to see: neither holds anything but the path of this program and of the
//! round's folder. The environment of the daemon, which may hold a passphrase, is not handed on.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::cluster::{Need, Queue, Submission};
use super::{ClusterSettings, SlurmSettings};

/// Slurm, as this site uses it.
#[derive(Debug)]
pub(super) struct Slurm {
    settings: SlurmSettings,
    program: PathBuf,
    tasks_at_once: u32,
    cpus_per_task: u32,
}

impl Slurm {
    pub(super) fn new(cluster: &ClusterSettings, settings: &SlurmSettings) -> Self {
        let ClusterSettings { program, tasks_at_once, cpus_per_task, .. } = cluster.clone();
        Self { settings: settings.clone(), program, tasks_at_once, cpus_per_task }
    }

    /// One of Slurm's commands, with nothing of our environment but where programs are.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(self.settings.configuration.as_ref().map(|path| ("SLURM_CONF", path)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What every submission says.
    fn options(&self, tasks: &BTreeSet<u32>, need: Need) -> Vec<String> {
        let mut options = vec![
            format!("--array={}%{}", listed(tasks), self.tasks_at_once),
            "--nodes=1".to_owned(),
            "--ntasks=1".to_owned(),
            format!("--cpus-per-task={}", self.cpus_per_task),
            format!("--mem={}M", need.memory_mib),
            format!("--time={}", need.minutes),
            // Of an environment that was emptied: see `command`.
            "--export=ALL".to_owned(),
            "--chdir=/".to_owned(),
            "--input=/dev/null".to_owned(),
            "--requeue".to_owned(),
        ];
        let own = [("partition", &self.settings.partition), ("account", &self.settings.account), ("qos", &self.settings.qos)];
        options.extend(own.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value.as_ref()?))));
        options
    }

    /// Paths were checked to hold nothing that a shell would see.
    fn script(&self, folder: &std::path::Path) -> String {
        format!("#!/bin/sh\nexec '{}' task '{}'\n", self.program.display(), folder.display())
    }
}

/// `0-3,7`.
fn listed(tasks: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &task in tasks {
        match runs.last_mut() {
            Some((_, last)) if last.saturating_add(1) == task => *last = task,
            _ => runs.push((task, task)),
        }
    }
    let run = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

/// Runs it. What it says where it fails is Slurm's own, about public terms.
fn run(mut command: Command, input: Option<&str>) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let io = |error: std::io::Error| format!("{program}: {error}");
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(io)?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A command that ends without reading says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(io)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect();
    Err(format!("{program}: {said}"))
}

impl Queue for Slurm {
    fn check(&self, tasks: u32, need: Need) -> Result<(), String> {
        let mut sbatch = self.command("sbatch");
        sbatch.arg("--test-only").args(self.options(&(0..tasks).collect(), need));
        run(sbatch, Some("#!/bin/sh\n")).map(|_| ())
    }

    fn submit(&self, round: &Submission<'_>, tasks: &BTreeSet<u32>) -> Result<(), String> {
        let mut sbatch = self.command("sbatch");
        sbatch.arg("--parsable").arg(format!("--job-name={}", round.name)).args(self.options(tasks, round.need));
        sbatch.arg(format!("--output={}/said-%a", round.folder.display())).arg("--open-mode=truncate");
        run(sbatch, Some(&self.script(round.folder))).map(|_| ())
    }

    fn queued(&self, name: &str) -> Result<BTreeSet<u32>, String> {
        let mut squeue = self.command("squeue");
        let user = rustix::process::getuid().as_raw();
        // One line for each task: its number in the array.
        squeue.args(["--noheader", "--array", &format!("--user={user}"), &format!("--name={name}"), "--format=%K"]);
        run(squeue, None).map(|lines| lines.lines().filter_map(|line| line.trim().parse().ok()).collect())
    }

    fn cancel(&self, name: &str) -> Result<(), String> {
        let mut scancel = self.command("scancel");
        scancel.args(["--quiet", &format!("--name={name}")]);
        run(scancel, None).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_listed_in_runs() {
        let list = |tasks: &[u32]| listed(&tasks.iter().copied().collect());
        assert_eq!(list(&[0, 1, 2, 3]), "0-3");
        assert_eq!(list(&[5]), "5");
        assert_eq!(list(&[9, 0, 1, 7]), "0-1,7,9");
    }

    #[test]
    fn a_submission_says_what_was_set_and_nothing_of_the_site() {
        let cluster = ClusterSettings {
            folder: "/shared/v".into(),
            program: "/opt/v/vestibule".into(),
            tasks: 4,
            tasks_at_once: 2,
            cpus_per_task: 3,
            attempts: 1,
            poll_seconds: 1,
            longest_minutes: 1,
            give_up_minutes: 1,
        };
        let own = SlurmSettings { partition: Some("p".into()), qos: Some("q".into()), ..SlurmSettings::default() };
        let slurm = Slurm::new(&cluster, &own);
        let options = slurm.options(&[0, 1, 3].into(), Need { minutes: 70, memory_mib: 900 }).join(" ");
        for says in ["--array=0-1,3%2", "--cpus-per-task=3", "--mem=900M", "--time=70", "--requeue", "--partition=p", "--qos=q"]
        {
            assert!(options.contains(says), "{says}: {options}");
        }
        assert!(!options.contains("account"), "{options}");
        assert_eq!(slurm.script("/shared/v/00".as_ref()), "#!/bin/sh\nexec '/opt/v/vestibule' task '/shared/v/00'\n");
    }
}
