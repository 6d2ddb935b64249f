//! S3-compatible storage, where a site keeps the rows of its datasets if it says so.
//!
//! *In*: settings; a file with credentials that nobody else may read. *Out*: objects: ranges of them, uploads that are whole or not there, removals. *Trusts*:
//! nothing that comes back: anyone who reads it opens it with the site's own key. *Refuses*: credentials that others may read, an address that is none.
//!
//! Requests run on a thread of their own, so that those who wait for them may block. All of them end: each has a time, and so many tries.

use std::future::Future;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ClientOptions, MultipartUpload, ObjectStore, ObjectStoreExt as _, RetryConfig};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// A request may take so long.
const REQUEST: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(5);
/// A request that failed is made again so many times, and not later than so long after the first.
const TRIES: usize = 4;
const TRYING: Duration = Duration::from_secs(60);
/// Bytes of a request: neighbours are read together up to there.
const TOGETHER: u64 = 8 << 20;

/// `[storage]` in `site.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageSettings {
    /// `s3://bucket/prefix`.
    pub url: String,
    /// Where the bucket is, if not at AWS: `https://host:port`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The bucket's region.
    #[serde(default)]
    pub region: Option<String>,
    /// A file with `access_key_id` and `secret_access_key`. Without one, the machine's own role is asked for.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
}

/// What the file with credentials holds.
#[derive(Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: Option<String>,
}

/// Why the storage did not do what was asked. Made of public terms: addresses, names of objects, what its server says.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The settings, or the file with credentials.
    #[error("`[storage]` in site.toml: {0}")]
    Settings(String),
    /// No such object, or bucket.
    #[error("{url}: there is no such object or bucket. Put it back, or ingest the dataset again")]
    Missing {
        /// Which.
        url: String,
    },
    /// The credentials do not suffice.
    #[error(
        "{url}: the storage refuses these credentials ({why}): see `credentials` of `[storage]` in site.toml, and the bucket's policy"
    )]
    Denied {
        /// Which.
        url: String,
        /// The status.
        why: &'static str,
    },
    /// No room for what a round reads.
    #[error("what a round reads is first copied into the data folder, still sealed: {0}. Free some space there")]
    Room(String),
    /// Something else, after several tries.
    #[error("{url}: {why}. Nothing was lost: try again when the storage can be reached")]
    Unreachable {
        /// Which.
        url: String,
        /// What was seen.
        why: String,
    },
}

impl StorageError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Settings(_) => "storage-settings",
            Self::Missing { .. } => "storage-missing",
            Self::Denied { .. } => "storage-denied",
            Self::Room(_) => "storage-room",
            Self::Unreachable { .. } => "storage-unreachable",
        }
    }
}

/// A bucket, or the part of one that is the site's.
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    url: String,
    prefix: String,
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.url)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // Not waited for: it may be dropped where waiting is not allowed.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Bucket {
    /// The bucket of these settings; relative paths are those of `folder`. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The settings or the credentials cannot be used.
    pub fn new(settings: &StorageSettings, folder: &FilePath) -> Result<Self, StorageError> {
        let wrong = |why: String| StorageError::Settings(why);
        let rest =
            settings.url.strip_prefix("s3://").ok_or_else(|| wrong(format!("`{}` is not s3://BUCKET/PREFIX", settings.url)))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong(format!("`{}` names no bucket", settings.url)));
        }
        let retry = RetryConfig { max_retries: TRIES, retry_timeout: TRYING, ..RetryConfig::default() };
        let plain = settings.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let client = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST).with_allow_http(plain);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(settings.region.as_deref().unwrap_or("us-east-1"))
            .with_retry(retry)
            .with_client_options(client);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        if let Some(file) = &settings.credentials {
            let credentials = credentials(&folder.join(file)).map_err(wrong)?;
            builder = builder
                .with_access_key_id(credentials.access_key_id.as_str())
                .with_secret_access_key(credentials.secret_access_key.as_str());
            if let Some(token) = &credentials.session_token {
                builder = builder.with_token(token.as_str());
            }
        }
        let store = builder.build().map_err(|error| wrong(error.to_string()))?;
        Self::of(Arc::new(store), &format!("s3://{bucket}"), prefix)
    }

    /// Any store that speaks the same.
    pub(super) fn of(store: Arc<dyn ObjectStore>, url: &str, prefix: &str) -> Result<Self, StorageError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("storage").enable_all().build();
        let runtime = runtime.map_err(|error| StorageError::Settings(error.to_string()))?;
        let prefix = prefix.trim_matches('/').to_owned();
        let url = if prefix.is_empty() { url.to_owned() } else { format!("{url}/{prefix}") };
        Ok(Self { store, url, prefix, runtime: Some(runtime) })
    }

    /// Its address, as the settings give it.
    pub(super) fn place(&self) -> &str {
        &self.url
    }

    /// An object's address.
    pub(super) fn url(&self, object: &str) -> String {
        format!("{}/{object}", self.url)
    }

    fn path(&self, object: &str) -> Path {
        if self.prefix.is_empty() { Path::from(object) } else { Path::from(format!("{}/{object}", self.prefix)) }
    }

    /// Begins something; what comes of it can be waited for.
    pub(super) fn start<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Receiver<T> {
        let (done, wait) = sync_channel(1);
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move {
                // Anyone who waited may have gone.
                let _ = done.send(work.await);
            });
        }
        wait
    }

    /// Waits for what was begun.
    pub(super) fn wait<T>(&self, begun: &Receiver<Result<T, object_store::Error>>, object: &str) -> Result<T, StorageError> {
        let stopped = || StorageError::Unreachable { url: self.url(object), why: "the request was given up".to_owned() };
        begun.recv().map_err(|_| stopped())?.map_err(|error| self.failed(object, &error))
    }

    fn failed(&self, object: &str, error: &object_store::Error) -> StorageError {
        let url = self.url(object);
        match error {
            object_store::Error::NotFound { .. } => StorageError::Missing { url },
            object_store::Error::PermissionDenied { .. } => StorageError::Denied { url, why: "403" },
            object_store::Error::Unauthenticated { .. } => StorageError::Denied { url, why: "401" },
            other => {
                let mut why = other.to_string().replace(['\n', '\r'], " ");
                if let Some((end, _)) = why.char_indices().nth(300) {
                    why.truncate(end);
                }
                StorageError::Unreachable { url, why }
            }
        }
    }

    /// How long an object is.
    pub(super) fn length(&self, object: &str) -> Result<u64, StorageError> {
        let (store, path) = (Arc::clone(&self.store), self.path(object));
        let head = self.wait(&self.start(async move { store.head(&path).await }), object)?;
        Ok(head.size)
    }

    /// Begins to read ranges of an object: those that touch in one request, and no byte between others.
    pub(super) fn fetch(&self, object: &str, ranges: Vec<Range<u64>>) -> Receiver<Result<Vec<Vec<u8>>, object_store::Error>> {
        let (store, path) = (Arc::clone(&self.store), self.path(object));
        self.start(async move {
            let requests = together(&ranges);
            let mut running = JoinSet::new();
            for (number, request) in requests.iter().cloned().enumerate() {
                let (store, path) = (Arc::clone(&store), path.clone());
                running.spawn(async move { store.get_range(&path, request).await.map(|bytes| (number, bytes)) });
            }
            let mut answers = vec![None; requests.len()];
            while let Some(answer) = running.join_next().await {
                let (number, bytes) = answer??;
                answers.iter_mut().skip(number).take(1).for_each(|answer| *answer = Some(bytes.clone()));
            }
            let part = |range: &Range<u64>| -> Option<Vec<u8>> {
                let number = requests.iter().position(|request| request.start <= range.start && range.end <= request.end)?;
                let (request, bytes) = (requests.get(number)?, answers.get(number)?.as_ref()?);
                let start = usize::try_from(range.start.checked_sub(request.start)?).ok()?;
                let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
                Some(bytes.get(start..start.checked_add(length)?)?.to_vec())
            };
            let parts: Option<Vec<Vec<u8>>> = ranges.iter().map(part).collect();
            parts.ok_or_else(|| object_store::Error::Generic {
                store: "S3",
                source: "it sent fewer bytes than were asked for".into(),
            })
        })
    }

    /// Removes an object; that it is not there is no error.
    pub(super) fn remove(&self, object: &str) -> Result<(), StorageError> {
        let (store, path) = (Arc::clone(&self.store), self.path(object));
        match self.wait(&self.start(async move { store.delete(&path).await }), object) {
            Err(StorageError::Missing { .. }) => Ok(()),
            other => other,
        }
    }

    /// Begins an upload.
    pub(super) fn upload(&self, object: &str) -> Result<Box<dyn MultipartUpload>, StorageError> {
        let (store, path) = (Arc::clone(&self.store), self.path(object));
        self.wait(&self.start(async move { store.put_multipart(&path).await }), object)
    }
}

/// Ranges that follow each other without a gap, as one, unless they become too long.
fn together(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges.to_vec();
    sorted.sort_by_key(|range| range.start);
    let mut found: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match found.last_mut() {
            Some(last) if last.end == range.start && range.end.saturating_sub(last.start) <= TOGETHER => last.end = range.end,
            _ => found.push(range),
        }
    }
    found
}

fn credentials(file: &FilePath) -> Result<Credentials, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = file.display();
    let mode = std::fs::metadata(file).map_err(|error| format!("{shown}: {error}"))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{shown} may be read by others than its owner (mode {:o}): `chmod 600` it", mode & 0o777));
    }
    let text = Zeroizing::new(std::fs::read_to_string(file).map_err(|error| format!("{shown}: {error}"))?);
    // What is wrong with it is not shown with its text: that is a secret.
    toml::from_str(&text).map_err(|_| format!("{shown} does not hold access_key_id = \"..\" and secret_access_key = \"..\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> StorageSettings {
        StorageSettings { url: url.to_owned(), endpoint: None, region: None, credentials: Some("credentials.toml".into()) }
    }

    #[test]
    fn what_touches_is_read_together_and_nothing_between() {
        assert_eq!(together(&[0..10, 10..20, 21..30, 5_000..5_001]), [0..20, 21..30, 5_000..5_001]);
        assert!(together(&[10..20, 0..10]).iter().eq([&(0..20)]));
        let long = 0..TOGETHER;
        assert_eq!(together(&[long.clone(), TOGETHER..TOGETHER + 1]), [long, TOGETHER..TOGETHER + 1]);
    }

    #[test]
    fn credentials_that_others_may_read_and_addresses_that_are_none_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("credentials.toml");
        let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = |url: &str| {
            Bucket::new(&settings(url), temp.path()).map(|bucket| bucket.url("o")).map_err(|error| error.to_string())
        };
        assert!(said("s3://b").unwrap_err().contains("credentials.toml"));
        std::fs::write(&file, "access_key_id = \"me\"\nsecret_access_key = \"hush\"\n").unwrap();
        mode(0o640);
        assert!(said("s3://b/p").unwrap_err().contains("chmod 600"));
        mode(0o600);
        assert_eq!(said("s3://b/p/").unwrap(), "s3://b/p/o");
        assert_eq!(said("s3://b").unwrap(), "s3://b/o");
        assert!(said("https://b").unwrap_err().contains("s3://") && said("s3:///p").unwrap_err().contains("no bucket"));
        std::fs::write(&file, "secret_access_key = \"hush\"\n").unwrap();
        let error = said("s3://b").unwrap_err();
        assert!(error.contains("access_key_id") && !error.contains("hush"), "{error}");
    }
}
