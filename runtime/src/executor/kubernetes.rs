//! Tasks as Indexed Jobs of Kubernetes, by its API. Tested against answers such as an API server gives; **not yet on a live cluster**.
//!
//! *In*: a round's random name, its folder, what a task needs. *Out*: which tasks the cluster has, from what it says of the round's jobs.
//! *Trusts*: the configuration that `kubectl` would use, or the service account of the pod that the daemon runs in. *Refuses*: to run tasks as root.
//!
//! A submission is one Job with an index for each of its tasks; a task that is lost is a new Job's. Pods get no token, no capability, no writable
//! file system but the volume of the rounds, and the daemon's own user, so that folders that are closed to others are open to them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::cluster::{Need, Queue, Submission};
use super::{ClusterSettings, ExecutorError, KubernetesSettings};

/// Kubernetes, as this site uses it.
pub(super) struct Kubernetes {
    settings: KubernetesSettings,
    program: PathBuf,
    folder: PathBuf,
    tasks_at_once: u32,
    cpus_per_task: u32,
    /// User and group.
    user: (u32, u32),
    client: Client,
    /// Of its own: anyone who asks is a thread that may block. Taken when dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kubernetes({})", self.settings.namespace)
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        // Also where this is dropped by a task of another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

const ROUND: &str = "vestibule-round";
const TASKS: &str = "vestibule-tasks";

impl Kubernetes {
    pub(super) fn new(cluster: &ClusterSettings, settings: &KubernetesSettings) -> Result<Self, ExecutorError> {
        let user = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        if user.0 == 0 {
            return Err(ExecutorError::Refused(
                "the daemon runs as root, and so would its tasks: run it as a user of its own".to_owned(),
            ));
        }
        let refused = |error: &dyn std::fmt::Display| ExecutorError::Refused(error.to_string());
        let runtime = runtime().map_err(|error| refused(&error))?;
        let client = waited(&runtime, async { Client::try_from(Config::infer().await.map_err(text)?).map_err(text) });
        let client = client.map_err(|error| refused(&error))?;
        Ok(Self::with(cluster, settings, user, (client, runtime)))
    }

    fn with(
        cluster: &ClusterSettings,
        settings: &KubernetesSettings,
        user: (u32, u32),
        (client, runtime): (Client, tokio::runtime::Runtime),
    ) -> Self {
        let ClusterSettings { program, folder, tasks_at_once, cpus_per_task, .. } = cluster.clone();
        Self { settings: settings.clone(), program, folder, tasks_at_once, cpus_per_task, user, client, runtime: Some(runtime) }
    }

    /// A Job with an index for each of these tasks.
    fn manifest(&self, name: &str, folder: &std::path::Path, need: Need, tasks: &BTreeSet<u32>) -> Value {
        let listed = tasks.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let count = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        let amounts = json!({ "cpu": self.cpus_per_task.to_string(), "memory": format!("{}Mi", need.memory_mib) });
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "generateName": format!("vestibule-{name}-"),
                "labels": { ROUND: name },
                "annotations": { TASKS: listed },
            },
            "spec": {
                "completionMode": "Indexed",
                "completions": count,
                "parallelism": count.min(self.tasks_at_once),
                // How often a task is run, the daemon counts; a pod whose node goes away does not count.
                "backoffLimitPerIndex": 0,
                "maxFailedIndexes": count,
                "podFailurePolicy": { "rules": [{ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] }] },
                "ttlSecondsAfterFinished": 3_600,
                "template": {
                    "metadata": { "labels": { ROUND: name } },
                    "spec": {
                        "restartPolicy": "Never",
                        "automountServiceAccountToken": false,
                        "enableServiceLinks": false,
                        "activeDeadlineSeconds": need.minutes.saturating_mul(60),
                        "securityContext": {
                            "runAsNonRoot": true,
                            "runAsUser": self.user.0,
                            "runAsGroup": self.user.1,
                            "seccompProfile": { "type": "RuntimeDefault" },
                        },
                        "containers": [{
                            "name": "task",
                            "image": self.settings.image,
                            "command": [self.program, "task", folder, "--of", listed, "--index", "$(JOB_COMPLETION_INDEX)"],
                            "securityContext": {
                                "allowPrivilegeEscalation": false,
                                "readOnlyRootFilesystem": true,
                                "capabilities": { "drop": ["ALL"] },
                            },
                            "resources": { "requests": amounts, "limits": amounts },
                            "volumeMounts": [{ "name": "rounds", "mountPath": self.folder }],
                        }],
                        "volumes": [{ "name": "rounds", "persistentVolumeClaim": { "claimName": self.settings.claim } }],
                    },
                },
            },
        })
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.clone(), &self.settings.namespace)
    }

    fn create(&self, manifest: Value, dry_run: bool) -> Result<(), String> {
        let job: Job = serde_json::from_value(manifest).map_err(text)?;
        let how = PostParams { dry_run, ..PostParams::default() };
        self.waited(async { self.jobs().create(&how, &job).await.map(|_| ()).map_err(text) })
    }

    fn waited<T: Send>(&self, asked: impl Future<Output = Result<T, String>> + Send) -> Result<T, String> {
        waited(self.runtime.as_ref().ok_or("it is being dropped")?, asked)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string().chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// Waits in a thread that belongs to no other runtime, and no longer than a minute.
fn waited<T: Send>(
    runtime: &tokio::runtime::Runtime,
    asked: impl Future<Output = Result<T, String>> + Send,
) -> Result<T, String> {
    let patient = async { tokio::time::timeout(std::time::Duration::from_secs(60), asked).await };
    let answer = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(patient)).join());
    answer.map_err(|_| "a thread failed".to_owned())?.map_err(|_| "the API server does not answer".to_owned())?
}

/// The tasks that a job still has, from what the cluster says of it.
fn open(job: &Job) -> BTreeSet<u32> {
    let annotations = job.metadata.annotations.as_ref();
    let tasks: Vec<u32> = annotations
        .and_then(|annotations| annotations.get(TASKS))
        .map(|tasks| tasks.split(',').filter_map(|task| task.parse().ok()).collect())
        .unwrap_or_default();
    let Some(status) = &job.status else { return tasks.into_iter().collect() };
    let ended = |kind: &str| kind == "Complete" || kind == "Failed";
    if status.conditions.iter().flatten().any(|condition| ended(&condition.type_) && condition.status == "True") {
        return BTreeSet::new();
    }
    let mut gone = indexes(status.completed_indexes.as_deref().unwrap_or_default());
    gone.append(&mut indexes(status.failed_indexes.as_deref().unwrap_or_default()));
    (0..).zip(tasks).filter(|(index, _)| !gone.contains(index)).map(|(_, task)| task).collect()
}

/// `1,3-5`.
fn indexes(text: &str) -> BTreeSet<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?.min(super::settings::MAX_TASKS))
    };
    text.split(',').filter_map(range).flatten().collect()
}

impl Queue for Kubernetes {
    fn check(&self, tasks: u32, need: Need) -> Result<(), String> {
        let all = (0..tasks).collect();
        self.create(self.manifest("check", &self.folder, need, &all), true)
    }

    fn submit(&self, round: &Submission<'_>, tasks: &BTreeSet<u32>) -> Result<(), String> {
        self.create(self.manifest(round.name, round.folder, round.need, tasks), false)
    }

    fn queued(&self, name: &str) -> Result<BTreeSet<u32>, String> {
        let which = ListParams::default().labels(&format!("{ROUND}={name}"));
        let jobs = self.waited(async { self.jobs().list(&which).await.map_err(text) })?;
        Ok(jobs.items.iter().flat_map(open).collect())
    }

    fn cancel(&self, name: &str) -> Result<(), String> {
        let which = ListParams::default().labels(&format!("{ROUND}={name}"));
        // Pods go with their jobs.
        self.waited(async {
            self.jobs().delete_collection(&DeleteParams::background(), &which).await.map(|_| ()).map_err(text)
        })
    }
}

#[cfg(test)]
mod tests;
