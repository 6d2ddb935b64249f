//! Where a new file of rows goes: a file of the version's folder, or an object in the site's bucket.
//!
//! *In*: bytes, as they come. *Out*: a file that is synced, or an object that is whole. *Refuses*: to leave half an object: it is not there before
//! [`Sink::commit`], and never if that is not reached.
//!
//! An object has a random name, which the version's folder keeps (`people.object`) from before the object can be there: so anyone who removes the folder can
//! remove the object, whatever was killed when.

use std::fs::File;
use std::io::{Error, Result, Write};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use cap_std::fs::Dir;
use object_store::MultipartUpload;
use vestibule_protocol::digest::hex;

use super::super::DataFolder;
use super::super::bucket::{Bucket, StorageError};
use super::FILE;

/// Names the object that holds a version's rows.
pub(in super::super) const OBJECT: &str = "people.object";
/// Bytes of a part. Each thousand of them the parts grow by as much: 10,000 are the most that S3 takes, 880 GB in all.
const PART: usize = 16 << 20;

/// The bucket, and an object in it; or that the object lies in another.
pub(in super::super) type Found<'a> = std::result::Result<(&'a Arc<Bucket>, String), StorageError>;

/// Where rows are written.
pub(in super::super) enum Sink {
    File(File),
    Object(Box<Upload>),
}

impl Sink {
    /// A new file for the version whose folder is `dir`.
    pub(in super::super) fn new(data: &DataFolder, dir: &Dir) -> Result<Self> {
        // What a killed ingest had begun.
        forget(data, dir)?;
        let Some(bucket) = data.bucket() else { return Ok(Self::File(dir.create(FILE)?.into_std())) };
        if dir.exists(FILE) {
            dir.remove_file(FILE)?;
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Error::other(error.to_string()))?;
        let object = format!("{}.rows", hex(&random));
        let upload = bucket.upload(&object).map_err(Error::other)?;
        Ok(Self::Object(Box::new(Upload::new(Arc::clone(bucket), object, upload))))
    }

    /// All was written: it is there from now on. `dir`: the version's folder.
    pub(in super::super) fn commit(self, dir: &Dir) -> Result<()> {
        match self {
            Self::File(file) => file.sync_all(),
            Self::Object(upload) => upload.complete(dir),
        }
    }
}

/// Removes the object of a version, if it has one.
pub(in super::super) fn forget(data: &DataFolder, dir: &Dir) -> Result<()> {
    if let Some(object) = object(data, dir)? {
        let (bucket, object) = object.map_err(Error::other)?;
        bucket.remove(&object).map_err(Error::other)?;
        dir.remove_file(OBJECT)?;
    }
    Ok(())
}

/// Which object holds a version's rows, if one does; an error where it lies in another bucket than the site's.
pub(in super::super) fn object<'a>(data: &'a DataFolder, dir: &Dir) -> Result<Option<Found<'a>>> {
    let url = match dir.read_to_string(OBJECT) {
        Ok(url) => url,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let url = url.trim();
    let (_, object) = url.rsplit_once('/').unwrap_or(("", url));
    let bucket = data.bucket().filter(|bucket| bucket.url(object) == url);
    let elsewhere = || {
        StorageError::Settings(format!(
            "rows lie in {url}, which is not what it speaks of: put it back; or remove that object and the folder of its version yourself, and ingest again"
        ))
    };
    Ok(Some(bucket.map(|bucket| (bucket, object.to_owned())).ok_or_else(elsewhere)))
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Object(upload) => upload.take(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Object(_) => Ok(()),
        }
    }
}

/// An upload in parts: one is on its way while the next is filled.
pub(in super::super) struct Upload {
    bucket: Arc<Bucket>,
    object: String,
    /// `None` once it was completed or given up.
    upload: Option<Box<dyn MultipartUpload>>,
    part: Vec<u8>,
    parts: usize,
    sending: Option<Receiver<object_store::Result<()>>>,
}

impl Upload {
    fn new(bucket: Arc<Bucket>, object: String, upload: Box<dyn MultipartUpload>) -> Self {
        Self { bucket, object, upload: Some(upload), part: vec![], parts: 0, sending: None }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART.saturating_mul(self.parts / 1_000 + 1) {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn sent(&mut self) -> Result<()> {
        let sending = self.sending.take();
        sending.map_or(Ok(()), |sending| self.bucket.wait(&sending, &self.object).map_err(Error::other))
    }

    fn send(&mut self) -> Result<()> {
        self.sent()?;
        let upload = self.upload.as_mut().ok_or_else(|| Error::other("the upload has ended"))?;
        let part = upload.put_part(std::mem::take(&mut self.part).into());
        self.parts = self.parts.saturating_add(1);
        self.sending = Some(self.bucket.start(part));
        Ok(())
    }

    fn complete(mut self, dir: &Dir) -> Result<()> {
        self.send()?;
        self.sent()?;
        crate::home::replace(dir, OBJECT, self.bucket.url(&self.object).as_bytes())?;
        dir.open(".")?.sync_all()?;
        let mut upload = self.upload.take().ok_or_else(|| Error::other("the upload has ended"))?;
        let done = self.bucket.start(async move { upload.complete().await });
        self.bucket.wait(&done, &self.object).map(|_| ()).map_err(Error::other)
    }
}

impl Drop for Upload {
    /// Given up: the storage is told to forget the parts.
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            let gone = self.bucket.start(async move { upload.abort().await });
            // That this failed changes nothing that was promised: what was sent is no object, and does not open without the key.
            let _ = gone.recv();
        }
    }
}
