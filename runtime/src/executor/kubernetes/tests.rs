//! An API server that keeps jobs in memory, and answers as a real one does: enough for what is asked of it.

use std::sync::{Arc, Mutex};

use super::*;
use crate::executor::ClusterSettings;

/// What was asked, and the jobs that there are.
#[derive(Default)]
struct Server {
    asked: Vec<String>,
    jobs: Vec<Value>,
}

type Shared = Arc<Mutex<Server>>;

fn answer(server: &Shared, method: &str, uri: &str, body: &[u8]) -> (u16, Value) {
    let mut server = server.lock().unwrap();
    server.asked.push(format!("{method} {uri}"));
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    assert_eq!(path, "/apis/batch/v1/namespaces/site/jobs");
    let label = query.split('&').find_map(|part| part.strip_prefix("labelSelector=vestibule-round%3D"));
    let of = |job: &Value| label.is_none_or(|label| job["metadata"]["labels"][ROUND] == label);
    match method {
        "POST" => {
            let mut job: Value = serde_json::from_slice(body).unwrap();
            if job["spec"]["template"]["spec"]["containers"][0]["image"] == "forbidden" {
                let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "not that image", "reason": "Forbidden", "code": 403 });
                return (403, status);
            }
            job["metadata"]["name"] =
                json!(format!("{}{}", job["metadata"]["generateName"].as_str().unwrap(), server.jobs.len()));
            if !query.contains("dryRun=All") {
                server.jobs.push(job.clone());
            }
            (201, job)
        }
        "GET" => {
            let items: Vec<Value> = server.jobs.iter().filter(|job| of(job)).cloned().collect();
            (200, json!({ "kind": "JobList", "apiVersion": "batch/v1", "metadata": {}, "items": items }))
        }
        "DELETE" => {
            assert!(
                label.is_some() && String::from_utf8_lossy(body).contains("Background"),
                "only a round's jobs, and their pods"
            );
            server.jobs.retain(|job| !of(job));
            (200, json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" }))
        }
        other => panic!("{other}"),
    }
}

fn kubernetes(image: &str) -> (Kubernetes, Shared) {
    let cluster = ClusterSettings {
        folder: "/rounds".into(),
        program: "/usr/bin/vestibule".into(),
        tasks: 4,
        tasks_at_once: 2,
        cpus_per_task: 3,
        attempts: 2,
        poll_seconds: 1,
        longest_minutes: 100,
        give_up_minutes: 100,
    };
    let settings = KubernetesSettings { namespace: "site".into(), image: image.into(), claim: "shared".into() };
    let server = Shared::default();
    let at = Arc::clone(&server);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let at = Arc::clone(&at);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let (status, json) = answer(&at, head.method.as_str(), &head.uri.to_string(), &body);
            let body = kube::client::Body::from(serde_json::to_vec(&json).unwrap());
            Ok::<_, std::convert::Infallible>(http::Response::builder().status(status).body(body).unwrap())
        }
    });
    let runtime = runtime().unwrap();
    let client = {
        let _inside = runtime.enter();
        Client::new(service, "site")
    };
    (Kubernetes::with(&cluster, &settings, (1_000, 1_001), (client, runtime)), server)
}

const NEED: Need = Need { minutes: 70, memory_mib: 900 };

fn set(tasks: &[u32]) -> BTreeSet<u32> {
    tasks.iter().copied().collect()
}

#[test]
fn a_rounds_tasks_are_created_watched_run_again_and_deleted() {
    let (kubernetes, server) = kubernetes("image");
    let submission = |name| Submission { name, folder: "/rounds/r".as_ref(), need: NEED };
    kubernetes.check(4, NEED).unwrap();
    assert_eq!(kubernetes.queued("aa").unwrap(), set(&[]), "a dry run creates nothing");
    kubernetes.submit(&submission("aa"), &set(&[0, 1, 2, 3])).unwrap();
    kubernetes.submit(&submission("bb"), &set(&[0])).unwrap();
    // Created, not begun.
    assert_eq!(kubernetes.queued("aa").unwrap(), set(&[0, 1, 2, 3]));
    let status = |job: usize, status: Value| server.lock().unwrap().jobs[job]["status"] = status;
    status(0, json!({ "active": 2, "ready": 2 }));
    assert_eq!(kubernetes.queued("aa").unwrap(), set(&[0, 1, 2, 3]));
    status(0, json!({ "active": 1, "succeeded": 2, "completedIndexes": "0,2", "failedIndexes": "3" }));
    assert_eq!(kubernetes.queued("aa").unwrap(), set(&[1]));
    // The lost one is another job's.
    kubernetes.submit(&submission("aa"), &set(&[3])).unwrap();
    assert_eq!(kubernetes.queued("aa").unwrap(), set(&[1, 3]));
    let failed = json!([{ "type": "Failed", "status": "True", "reason": "FailedIndexes" }]);
    status(0, json!({ "completedIndexes": "0-2", "failedIndexes": "3", "conditions": failed }));
    assert_eq!(kubernetes.queued("aa").unwrap(), set(&[3]));
    status(2, json!({ "completedIndexes": "0", "conditions": [{ "type": "Complete", "status": "True" }] }));
    assert_eq!(kubernetes.queued("aa").unwrap(), set(&[]));
    // Somebody deleted a job: its tasks are gone, and are submitted again by anyone who asks.
    assert_eq!(kubernetes.queued("bb").unwrap(), set(&[0]));
    server.lock().unwrap().jobs.remove(1);
    assert_eq!(kubernetes.queued("bb").unwrap(), set(&[]));
    kubernetes.cancel("aa").unwrap();
    kubernetes.cancel("aa").unwrap();
    assert!(server.lock().unwrap().jobs.is_empty());
    assert!(server.lock().unwrap().asked.iter().all(|asked| asked.contains("/namespaces/site/jobs")));
}

#[test]
fn what_the_api_server_refuses_is_said_in_its_words() {
    let (kubernetes, _) = kubernetes("forbidden");
    let why = kubernetes.check(1, NEED).unwrap_err();
    assert!(why.contains("not that image"), "{why}");
}

#[test]
fn pods_have_what_a_task_needs_and_nothing_else() {
    let (kubernetes, _) = kubernetes("image");
    let manifest = kubernetes.manifest("aa", "/rounds/aa".as_ref(), NEED, &set(&[1, 4]));
    let spec = &manifest["spec"];
    assert_eq!(
        (&spec["completionMode"], &spec["completions"], &spec["parallelism"]),
        (&json!("Indexed"), &json!(2), &json!(2))
    );
    assert_eq!(spec["backoffLimitPerIndex"], 0);
    let pod = &spec["template"]["spec"];
    assert_eq!((&pod["automountServiceAccountToken"], &pod["restartPolicy"]), (&json!(false), &json!("Never")));
    assert_eq!(pod["activeDeadlineSeconds"], 4_200);
    assert_eq!((&pod["securityContext"]["runAsNonRoot"], &pod["securityContext"]["runAsUser"]), (&json!(true), &json!(1_000)));
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    let command = json!(["/usr/bin/vestibule", "task", "/rounds/aa", "--of", "1,4", "--index", "$(JOB_COMPLETION_INDEX)"]);
    assert_eq!(container["command"], command);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(container["resources"]["limits"], json!({ "cpu": "3", "memory": "900Mi" }));
    assert_eq!(container["volumeMounts"], json!([{ "name": "rounds", "mountPath": "/rounds" }]));
    assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], "shared");
    // It is what Kubernetes' own types hold, with nothing left over.
    let job: Job = serde_json::from_value(manifest.clone()).unwrap();
    assert_eq!(serde_json::to_value(job).unwrap(), manifest);
}

#[test]
fn intervals_of_indexes_are_read_and_nonsense_is_not() {
    assert_eq!(indexes("0,2-4,7"), set(&[0, 2, 3, 4, 7]));
    assert_eq!(indexes(""), set(&[]));
    assert_eq!(indexes("x,1-,-,5-3"), set(&[]));
    assert_eq!(indexes("999-4294967295"), set(&[999, 1_000]));
}
