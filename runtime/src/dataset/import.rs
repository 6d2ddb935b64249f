//! Source files are read by importers: confined processes, one for each reading of a file, so that whatever a file makes of its importer
//! is a matter of that file alone.
//!
//! *In*: names of source files. *Out*: [`Reading`]s of them, whose answers were checked for shape. *Trusts*: nothing that an importer says: what a file
//! held may speak through it. It may say wrong genotypes and values of that file, as the file itself could. *Refuses*: answers of another shape; an
//! importer that dies or hangs is an error that names the file.
//!
//! Files that are encrypted for the site are decrypted here, since importers hold no key, and handed on through a pipe.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;
use std::thread::JoinHandle;

use cap_std::fs::Dir;
use vestibule_importer::{Bytes, ConfigError, Decrypted, MAGIC, Said, Talk, Task, work};
use vestibule_worker::{Importer, Launch, Link, WorkerError, serve_importer};

use super::StoreKey;
use super::ingest::IngestError;

/// Runs an importer process until its file is read or the site hangs up.
#[must_use]
pub fn import() -> ExitCode {
    serve_importer(|link, files| work(&mut Talking(link), files))
}

struct Talking(Link);

impl Talk for Talking {
    fn hear(&mut self) -> std::io::Result<Task> {
        self.0.hear()
    }

    fn say(&mut self, said: &Said) -> std::io::Result<()> {
        self.0.say(said)
    }
}

/// How this site starts importers.
#[derive(Debug, Clone)]
pub struct Importers {
    launch: Launch,
    require_walls: bool,
}

impl Importers {
    /// `launch` must run [`import`]. `require_walls`: none is started where the kernel lacks a wall.
    #[must_use]
    pub const fn new(launch: Launch, require_walls: bool) -> Self {
        Self { launch, require_walls }
    }

    /// This very program's.
    #[must_use]
    pub fn this_program() -> Self {
        Self::new(Launch::this_importer(), false)
    }

    /// What does not hold of the walls around importers, in words.
    ///
    /// # Errors
    /// None can be started.
    pub fn gaps(&self) -> Result<Vec<String>, WorkerError> {
        Ok(Importer::start(&self.launch, [None, None])?.walls().gaps())
    }
}

/// A file, and those beside it, that an importer reads.
pub(super) struct Reading {
    name: String,
    process: Importer,
    /// How far they were read shows at these, which share their positions with the importer's.
    files: Vec<File>,
    decrypting: Vec<(String, JoinHandle<std::io::Result<()>>)>,
    /// Records or lines that were taken in.
    pub(super) records: u64,
}

/// Longest text of an importer that is shown.
const MOST_CHARACTERS: usize = 2_000;

impl Reading {
    /// Hands files of the source folder to an importer of their own. `names`: the file, then one beside it where there is one.
    pub(super) fn start(importers: &Importers, source: &Dir, names: &[String], key: &StoreKey) -> Result<Self, IngestError> {
        let name = names.first().cloned().unwrap_or_default();
        let (mut files, mut handed, mut decrypting) = (Vec::new(), Vec::new(), Vec::new());
        for (index, name) in names.iter().enumerate() {
            let fail = |error: std::io::Error| match index {
                0 => IngestError::Config(ConfigError(format!("{name}: {error}"))),
                _ => IngestError::Config(ConfigError(format!(
                    "{}: {name}, which belongs to it: {error}",
                    names.first().map_or("", String::as_str)
                ))),
            };
            let file = source.open(name).map_err(fail)?.into_std();
            files.push(file.try_clone().map_err(fail)?);
            let mut start = [0; MAGIC.len()];
            let encrypted = file.read_exact_at(&mut start, 0).is_ok() && start == *MAGIC;
            handed.push(if encrypted {
                let (theirs, thread) = decrypt(file, key).map_err(fail)?;
                decrypting.push((name.clone(), thread));
                theirs
            } else {
                OwnedFd::from(file)
            });
        }
        let mut handed = handed.into_iter();
        let process = Importer::start(&importers.launch, [handed.next(), handed.next()])?;
        let gaps = process.walls().gaps();
        if importers.require_walls && !gaps.is_empty() {
            return Err(IngestError::Walls(gaps.join("; ")));
        }
        Ok(Self { name, process, files, decrypting, records: 0 })
    }

    /// Bytes of the files that were read so far. An importer could say anything of it, and it decides nothing but when a place is saved.
    pub(super) fn bytes_read(&mut self) -> u64 {
        let position = |file: &mut File| {
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            file.stream_position().unwrap_or(0).min(length)
        };
        self.files.iter_mut().map(position).fold(0, u64::saturating_add)
    }

    /// Tells it what to do.
    pub(super) fn say(&mut self, task: &Task) -> Result<(), IngestError> {
        if self.process.say(task).is_err() {
            return Err(self.lost());
        }
        Ok(())
    }

    /// The next that it says, which is no refusal.
    pub(super) fn hear(&mut self) -> Result<Said, IngestError> {
        match self.process.hear() {
            Ok(Said::Refused(text)) => {
                let plain = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
                let text: String = text.chars().take(MOST_CHARACTERS).map(plain).collect();
                // What could not be decrypted looks cut short to an importer.
                self.decrypted()?;
                Err(IngestError::Config(ConfigError(text)))
            }
            Ok(said) => Ok(said),
            Err(_) => {
                self.decrypted()?;
                Err(self.lost())
            }
        }
    }

    /// It has said all: whether it was given all.
    pub(super) fn finish(mut self) -> Result<(), IngestError> {
        self.decrypted()
    }

    /// Ends the importer, and says what went wrong at decrypting for it.
    fn decrypted(&mut self) -> Result<(), IngestError> {
        if self.decrypting.is_empty() {
            return Ok(());
        }
        let _ = self.process.end();
        for (name, thread) in self.decrypting.drain(..) {
            let ended = thread.join().unwrap_or_else(|_| Err(std::io::Error::other("it could not be decrypted")));
            ended.map_err(|error| IngestError::Config(ConfigError(format!("{name}: {error}"))))?;
        }
        Ok(())
    }

    /// It is gone, or says what no importer says.
    pub(super) fn lost(&mut self) -> IngestError {
        let (file, records, why) = (self.name.clone(), self.records, self.process.end());
        IngestError::Importer { file, records, why }
    }
}

/// A small file that goes to an importer as it is, in a message.
pub(super) fn whole(source: &Dir, of: &str, name: &str, key: &StoreKey) -> Result<Bytes, IngestError> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        source.open(name)?.take(MOST_BYTES.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.starts_with(MAGIC) {
            let mut plain = Vec::new();
            Decrypted::new(bytes.as_slice(), &key.crypt4gh())?.take(MOST_BYTES.saturating_add(1)).read_to_end(&mut plain)?;
            bytes = plain;
        }
        if bytes.len() as u64 > MOST_BYTES { Err(std::io::Error::other("it is larger than 256 MiB")) } else { Ok(bytes) }
    };
    let fail = |error: std::io::Error| ConfigError(format!("{of}: {name}, which belongs to it: {error}"));
    Ok(Bytes(read().map_err(fail)?))
}

/// A `.fam` of some millions of individuals.
const MOST_BYTES: u64 = 256 << 20;

/// A pipe that gives the plain bytes of a file, and what fills it.
fn decrypt(file: File, key: &StoreKey) -> std::io::Result<(OwnedFd, JoinHandle<std::io::Result<()>>)> {
    let mut plain = Decrypted::new(std::io::BufReader::with_capacity(1 << 17, file), &key.crypt4gh())?;
    let (theirs, mut ours) = std::io::pipe()?;
    let fill = move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = plain.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            match ours.write_all(bytes) {
                // Nobody wants more of it.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                other => other?,
            }
        }
    };
    Ok((theirs.into(), std::thread::spawn(fill)))
}

#[cfg(test)]
mod tests {
    use vestibule_importer::{Batch, Cell, Config, Row, Rows};

    use super::*;

    /// Not a test: the importer processes of the others, which start this very program again with only this to run.
    #[test]
    #[ignore = "it is the importer of the other tests, and no test"]
    fn an_importer() {
        // In the place of `main`, whose exit code nobody asks for.
        let _ = serve_importer(|link, files| work(&mut Misbehaving(Talking(link)), files));
        std::process::exit(0);
    }

    /// At files of some names an importer does what damage in a reader could.
    struct Misbehaving(Talking);

    impl Talk for Misbehaving {
        fn hear(&mut self) -> std::io::Result<Task> {
            let task = self.0.hear()?;
            match &task {
                Task::Open { name, .. } => self.at_variants(name),
                Task::Table { recipe, .. } => self.at_table(&Config::parse(recipe).unwrap().table[0].file),
                Task::Read { .. } => {}
            }
            Ok(task)
        }

        fn say(&mut self, said: &Said) -> std::io::Result<()> {
            self.0.say(said)
        }
    }

    impl Misbehaving {
        fn at_table(&mut self, file: &str) {
            let (columns, cells) = match file {
                "lie-column.csv" => (vec![99], vec![]),
                "lie-bounds.csv" => (vec![0], vec![Cell::Number(121.0)]),
                "lie-kind.csv" => (vec![0], vec![Cell::Flag(true)]),
                "lie-few.csv" => (vec![0], vec![]),
                "lie-many.csv" => (vec![0], vec![Cell::Missing, Cell::Missing]),
                _ => return,
            };
            self.say(&Said::Columns(columns)).unwrap();
            let row = Row { line: 2, id: "A".into(), cells };
            let _ = self.say(&Said::Values(Rows { rows: vec![row], ..Rows::default() }));
            let _: std::io::Result<Task> = self.0.hear();
        }

        fn at_variants(&mut self, name: &str) {
            match name {
                "abort.vcf" => std::process::abort(),
                "exit.vcf" => std::process::exit(0),
                "memory.vcf" => {
                    let mut held: Vec<Vec<u8>> = vec![];
                    loop {
                        held.push(Vec::with_capacity(64 << 20));
                    }
                }
                "rubbish.vcf" => self.0.0.say(&[7_u8; 30]).unwrap(),
                "out-of-turn.vcf" => self.say(&Said::Columns(vec![0])).unwrap(),
                name if name.starts_with("lie-") => {
                    self.say(&Said::Samples(vec!["A".into(), "B".into()])).unwrap();
                    let _: Task = self.0.hear().unwrap();
                    let good = || Batch { records: 1, found: vec![(0, 0)], codes: Bytes(vec![0]), ..Batch::default() };
                    let batch = match name {
                        "lie-long.vcf" => Batch { codes: Bytes(vec![0; 2]), ..good() },
                        "lie-short.vcf" => Batch { codes: Bytes(vec![]), ..good() },
                        "lie-catalogue.vcf" => Batch { found: vec![(1, 0)], ..good() },
                        "lie-variant.vcf" => Batch { found: vec![(0, 5)], ..good() },
                        "lie-twice.vcf" => Batch { found: vec![(0, 0); 2], codes: Bytes(vec![0; 2]), ..good() },
                        _ => good(),
                    };
                    self.say(&Said::Genotypes(batch)).unwrap();
                    let _: std::io::Result<Task> = self.0.hear();
                }
                _ => {}
            }
        }
    }
}
