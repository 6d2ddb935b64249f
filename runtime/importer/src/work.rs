//! What an importer process does behind its walls: it reads one file.
//!
//! *In*: the file, open; what to do. *Out*: [`Said`]s. *Trusts*: the site. *Refuses*: the file, in words that name it. It ends when the site hangs up.

use std::fs::File;
use std::io::Cursor;
use std::sync::Arc;

use vestibule_protocol::catalogue::Catalogue;
use vestibule_protocol::dictionary::Dictionary;

use crate::config::{Config, ConfigError};
use crate::message::{Said, Talk, Task};
use crate::plink::Input;
use crate::table;
use crate::variants::{self, Asked, VariantFile};

/// Reads one file, as it is told; ends when it is read, or the site hangs up. `beside`: a `.bed`'s `.bim`.
///
/// # Errors
/// The site hung up, or said what no site says.
pub fn work(link: &mut impl Talk, [file, beside]: [File; 2]) -> std::io::Result<()> {
    match link.hear()? {
        Task::Open { name, fam } => variants(link, &name, file, (beside, fam.0)),
        Task::Table { recipe, dictionary, table } => {
            if let Err(error) = read_table(link, &recipe, &dictionary, table, file)? {
                link.say(&Said::Refused(error.0))?;
            }
            Ok(())
        }
        Task::Read { .. } => Ok(()),
    }
}

fn variants(link: &mut impl Talk, name: &str, file: File, (bim, fam): (File, Vec<u8>)) -> std::io::Result<()> {
    let with_bed = || -> (Input, Input) { (Box::new(bim), Box::new(Cursor::new(fam))) };
    let opened = match variants::open(name, Box::new(file), with_bed) {
        Ok(opened) => opened,
        Err(error) => return link.say(&Said::Refused(error.0)),
    };
    link.say(&Said::Samples(opened.samples()))?;
    let Task::Read { catalogues, known, place, least_quality } = link.hear()? else { return Ok(()) };
    let catalogues: Result<Vec<_>, _> = catalogues.iter().map(|bytes| Catalogue::parse(&bytes.0).map(Arc::new)).collect();
    let catalogues = catalogues.map_err(std::io::Error::other)?;
    let asked = Asked { catalogues: &catalogues, known: &known, least_quality };
    let mut file = VariantFile::new(name, opened, asked, place);
    // What was read is said while more is read.
    let (sender, receiver) = std::sync::mpsc::sync_channel(AHEAD);
    std::thread::scope(|scope| {
        let saying = scope.spawn(move || receiver.iter().try_for_each(|said: Said| link.say(&said)));
        loop {
            let (said, more) = match file.advance() {
                Ok(batch) => {
                    let more = batch.more;
                    (Said::Genotypes(batch), more)
                }
                Err(error) => (Said::Refused(error.0), false),
            };
            if sender.send(said).is_err() || !more {
                break;
            }
        }
        drop(sender);
        saying.join().unwrap_or_else(|_| Err(std::io::Error::other("it could not be said")))
    })
}

/// Batches that wait to be said.
const AHEAD: usize = 2;

fn read_table(
    link: &mut impl Talk,
    recipe: &str,
    dictionary: &str,
    table: u32,
    file: File,
) -> std::io::Result<Result<(), ConfigError>> {
    let config = Config::parse(recipe).map_err(std::io::Error::other)?;
    let dictionary = Dictionary::parse(dictionary).map_err(std::io::Error::other)?;
    let mappings = config.mappings(&dictionary).map_err(std::io::Error::other)?;
    let Some(table) = config.table.get(table as usize) else { return Ok(Ok(())) };
    table::read(table, file, &mappings, &mut |said| link.say(&said))
}
