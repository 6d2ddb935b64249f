//! `[executor]` in `site.toml`: where rounds run.
//!
//! *In*: the table as it was read. *Out*: [`Chosen`]. *Refuses*: options that the chosen kind does not have, rather than let them do nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The table. Nothing is said of what is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecutorSettings {
    /// Where.
    pub kind: Kind,
    /// A folder that the daemon and all nodes see under this path, the site's alone.
    pub folder: Option<PathBuf>,
    /// This program, as nodes see it.
    pub program: Option<PathBuf>,
    /// Into how many tasks a round is cut.
    pub tasks: Option<u32>,
    /// How many of them run at the same time.
    pub tasks_at_once: Option<u32>,
    /// Processors, and worker processes, of a task.
    pub cpus_per_task: Option<u32>,
    /// How often a task is run before the round fails.
    pub attempts: Option<u32>,
    /// How often the queue is asked.
    pub poll_seconds: Option<u32>,
    /// The most that a task may be let take.
    pub longest_minutes: Option<u64>,
    /// How long a round may take, queue and all, before it fails.
    pub give_up_minutes: Option<u64>,
    /// Slurm's configuration, where it is not where Slurm looks for it.
    pub configuration: Option<PathBuf>,
    /// Slurm's partition.
    pub partition: Option<String>,
    /// Slurm's account.
    pub account: Option<String>,
    /// Slurm's quality of service.
    pub qos: Option<String>,
    /// Kubernetes' namespace.
    pub namespace: Option<String>,
    /// The image that has this program.
    pub image: Option<String>,
    /// The claim of the volume that is mounted at `folder`.
    pub claim: Option<String>,
}

/// Where rounds run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// On this machine.
    #[default]
    Threads,
    /// As array jobs of Slurm.
    Slurm,
    /// As indexed jobs of Kubernetes.
    Kubernetes,
}

/// What a site has chosen, with nothing missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// Threads of this machine.
    Threads,
    /// Array jobs of Slurm.
    Slurm(ClusterSettings, SlurmSettings),
    /// Indexed jobs of Kubernetes.
    Kubernetes(ClusterSettings, KubernetesSettings),
}

/// What every cluster needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Shared with all nodes.
    pub folder: PathBuf,
    /// This program there.
    pub program: PathBuf,
    /// Tasks of a round.
    pub tasks: u32,
    /// Of which so many run at the same time.
    pub tasks_at_once: u32,
    /// Processors of each.
    pub cpus_per_task: u32,
    /// Runs of a task that is lost again and again.
    pub attempts: u32,
    /// Seconds between questions to the queue.
    pub poll_seconds: u32,
    /// What a task may be let take.
    pub longest_minutes: u64,
    /// What a round may take.
    pub give_up_minutes: u64,
}

/// What Slurm is told besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlurmSettings {
    /// `SLURM_CONF`.
    pub configuration: Option<PathBuf>,
    /// `--partition`.
    pub partition: Option<String>,
    /// `--account`.
    pub account: Option<String>,
    /// `--qos`.
    pub qos: Option<String>,
}

/// What Kubernetes is told besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// Where jobs are made.
    pub namespace: String,
    /// What pods run.
    pub image: String,
    /// The volume of the rounds.
    pub claim: String,
}

/// Most tasks of a round: Slurm's usual `MaxArraySize` is 1,001.
pub(super) const MAX_TASKS: u32 = 1_000;

impl ExecutorSettings {
    /// What was chosen.
    ///
    /// # Errors
    /// What is missing, or is there and would do nothing, in words.
    pub fn chosen(&self) -> Result<Chosen, String> {
        let kubernetes = [("namespace", &self.namespace), ("image", &self.image), ("claim", &self.claim)];
        let strange = |kind: &str, options: &[(&str, bool)]| match options.iter().find(|(_, there)| *there) {
            Some((name, _)) => Err(format!("`[executor]` {name}: kind = \"{kind}\" has no such option")),
            None => Ok(()),
        };
        let slurm = [("partition", &self.partition), ("account", &self.account), ("qos", &self.qos)];
        match self.kind {
            Kind::Threads => {
                if *self != Self::default() {
                    return Err("`[executor]`: with kind = \"threads\" there are no other options".to_owned());
                }
                Ok(Chosen::Threads)
            }
            Kind::Kubernetes => {
                let there = slurm.map(|(name, value)| (name, value.is_some()));
                strange("kubernetes", &there)?;
                strange("kubernetes", &[("configuration", self.configuration.is_some())])?;
                let needed = |(name, value): (&str, &Option<String>)| {
                    let value = value.clone().filter(|value| !value.is_empty());
                    value.ok_or_else(|| format!("`[executor]`: with kind = \"kubernetes\", `{name}` is needed"))
                };
                let [namespace, image, claim] = kubernetes.map(needed);
                let own = KubernetesSettings { namespace: namespace?, image: image?, claim: claim? };
                Ok(Chosen::Kubernetes(self.cluster()?, own))
            }
            Kind::Slurm => {
                strange("slurm", &kubernetes.map(|(name, value)| (name, value.is_some())))?;
                for (name, value) in slurm {
                    word(name, value.as_deref())?;
                }
                self.configuration.iter().try_for_each(|path| absolute("configuration", path))?;
                let (partition, account, qos) = (self.partition.clone(), self.account.clone(), self.qos.clone());
                let configuration = self.configuration.clone();
                Ok(Chosen::Slurm(self.cluster()?, SlurmSettings { configuration, partition, account, qos }))
            }
        }
    }

    fn cluster(&self) -> Result<ClusterSettings, String> {
        let folder = self.folder.clone().ok_or("`[executor]`: a cluster needs `folder`, which all nodes see")?;
        let program = match &self.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(|error| format!("`[executor]`: where is this program? {error}"))?,
        };
        absolute("folder", &folder)?;
        absolute("program", &program)?;
        let tasks = within("tasks", self.tasks, 4, 1, MAX_TASKS)?;
        Ok(ClusterSettings {
            folder,
            program,
            tasks,
            tasks_at_once: within("tasks_at_once", self.tasks_at_once, tasks, 1, tasks)?,
            cpus_per_task: within("cpus_per_task", self.cpus_per_task, 1, 1, 1_024)?,
            attempts: within("attempts", self.attempts, 3, 1, 100)?,
            poll_seconds: within("poll_seconds", self.poll_seconds, 5, 1, 3_600)?,
            longest_minutes: within("longest_minutes", self.longest_minutes, 1_440, 1, 1 << 20)?,
            give_up_minutes: within("give_up_minutes", self.give_up_minutes, 2_880, 1, 1 << 20)?,
        })
    }
}

fn within<T: PartialOrd + std::fmt::Display>(name: &str, value: Option<T>, usual: T, lowest: T, most: T) -> Result<T, String> {
    let value = value.unwrap_or(usual);
    if value < lowest || value > most {
        return Err(format!("`[executor]` {name} is {value}: it must be at least {lowest} and at most {most}"));
    }
    Ok(value)
}

/// Paths are written into scripts and manifests as they are.
fn absolute(name: &str, path: &Path) -> Result<(), String> {
    let plain =
        path.to_str().is_some_and(|path| !path.contains(|c: char| c.is_control() || c == '\'' || c == '%' || c == '\\'));
    if !path.is_absolute() || !plain {
        let path = path.display();
        return Err(format!(
            "`[executor]` {name} is {path}: it must be a whole path, without quotes, `%`, `\\` and control characters"
        ));
    }
    Ok(())
}

fn word(name: &str, value: Option<&str>) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ',');
    match value {
        Some(value) if value.is_empty() || value.starts_with('-') || !value.chars().all(good) => {
            Err(format!("`[executor]` {name} is {value:?}: it is not a name of Slurm's"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str) -> Result<Chosen, String> {
        let settings: ExecutorSettings = toml::from_str(text).map_err(|error| error.to_string())?;
        settings.chosen()
    }

    #[test]
    fn what_is_not_said_is_usual() {
        assert_eq!(chosen(""), Ok(Chosen::Threads));
        let Chosen::Slurm(cluster, slurm) =
            chosen("kind = \"slurm\"\nfolder = \"/shared/v\"\nqos = \"low\"\ntasks = 8").unwrap()
        else {
            panic!("slurm")
        };
        assert_eq!((cluster.tasks, cluster.tasks_at_once, cluster.attempts), (8, 8, 3));
        assert!(cluster.program.is_absolute());
        assert_eq!(slurm, SlurmSettings { qos: Some("low".to_owned()), ..SlurmSettings::default() });
    }

    #[test]
    fn options_that_would_do_nothing_or_harm_are_refused_by_name() {
        for (text, says) in [
            ("kind = \"threads\"\ntasks = 2", "no other options"),
            ("kind = \"slurm\"", "needs `folder`"),
            ("kind = \"slurm\"\nfolder = \"here\"", "whole path"),
            ("kind = \"slurm\"\nfolder = \"/a'b\"", "quotes"),
            ("kind = \"slurm\"\nfolder = \"/a\"\nprogram = \"/b%j\"", "program"),
            ("kind = \"slurm\"\nfolder = \"/a\"\ntasks = 0", "tasks is 0"),
            ("kind = \"slurm\"\nfolder = \"/a\"\ntasks = 1001", "at most 1000"),
            ("kind = \"slurm\"\nfolder = \"/a\"\ntasks = 2\ntasks_at_once = 3", "tasks_at_once is 3"),
            ("kind = \"slurm\"\nfolder = \"/a\"\npartition = \"--wrap\"", "partition"),
            ("kind = \"slurm\"\nfolder = \"/a\"\naccount = \"a b\"", "account"),
            ("kind = \"slurm\"\nfolder = \"/a\"\npoll_seconds = 0", "poll_seconds"),
            ("kind = \"lsf\"", "unknown variant"),
            ("kind = \"slurm\"\nfolder = \"/a\"\nimage = \"i\"", "image"),
            ("kind = \"kubernetes\"\nfolder = \"/a\"\nnamespace = \"n\"\nimage = \"i\"", "`claim` is needed"),
            ("kind = \"kubernetes\"\nfolder = \"/a\"\nqos = \"q\"", "qos"),
            ("kind = \"kubernetes\"\nfolder = \"/a\"\nconfiguration = \"/c\"", "configuration"),
            ("kind = \"slurm\"\nmemory = 3", "unknown field"),
        ] {
            let error = chosen(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
