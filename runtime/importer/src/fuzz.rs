//! Where fuzzing begins: each function takes any bytes, reads them as one kind of input, and holds what comes out to what a site relies on. The kept corpus
//! (`fuzz/corpus`) runs through the same in `cargo test`.
#![allow(clippy::missing_panics_doc, reason = "a panic is what is looked for")]
#![allow(clippy::panic, reason = "a panic is what is looked for")]

use std::io::{Cursor, Read as _};
use std::sync::Arc;

use vestibule_protocol::catalogue::Catalogue;
use vestibule_protocol::dictionary::Dictionary;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::crypt4gh::{self, Crypt4ghKey, Decrypted};
use crate::message::Said;
use crate::plink::Input;
use crate::table;
use crate::variants::{self, Asked, Place, VariantFile};

const CATALOGUE: &[u8] = b"#catalogue\tpanel\n#build\tGRCh37\ncontig\tposition\tref\talt\n\
    1\t100\tA\tC\n1\t200\tG\tT\n1\t300\tA\tC\n1\t300\tA\tG\n2\t50\tC\tT\n";
const DICTIONARY: &str = "name = \"study\"\n[[column]]\nname = \"age\"\ntype = \"number\"\nlower = 0\nupper = 120\n[[column]]\nname = \"sex\"\n\
    type = \"levels\"\nlevels = [\"female\", \"male\"]\n[[column]]\nname = \"ill\"\ntype = \"flag\"\n[[column]]\nname = \"day\"\ntype = \"day\"\n";
const RECIPE: &str = "name = \"c\"\napproximate_size = 10\ndictionary = \"d\"\nbudget = { epsilon = 1.0, delta = 1e-6 }\n[[table]]\n\
    file = \"t.csv\"\nid = \"id\"\ndecimal = \",\"\nseparator = \";\"\n[map.age]\ncolumn = \"age\"\nscale = 2.0\n[map.sex]\ncolumn = \"sex\"\n\
    [map.ill]\ncolumn = \"ill\"\nyes = [\"y\"]\nno = [\"n\"]\n[map.day]\ncolumn = \"day\"\n";

fn boxed(bytes: &[u8]) -> Input {
    Box::new(Cursor::new(bytes.to_vec()))
}

/// Reads a variant file of any format: what is found lies in the catalogue, once each, with codes for everybody.
fn read(name: &str, bytes: &[u8], beside: (&[u8], &[u8])) {
    let catalogues = [Arc::new(Catalogue::parse(CATALOGUE).expect("a catalogue"))];
    let Ok(opened) = variants::open(name, boxed(bytes), || (boxed(beside.0), boxed(beside.1))) else { return };
    let stride = opened.samples().len().div_ceil(4);
    let asked = Asked { catalogues: &catalogues, known: &[], least_quality: 20 };
    let mut file = VariantFile::new(name, opened, asked, Place::start(&catalogues));
    let mut place = Place::start(&catalogues);
    let mut records = 0;
    while let Ok(batch) = file.advance() {
        assert!(batch.records >= records && batch.codes.0.len() == batch.found.len() * stride);
        assert!(batch.found.iter().all(|found| place.mark(*found)));
        records = batch.records;
        if !batch.more {
            break;
        }
    }
}

/// VCF, gVCF, BCF, by their content.
pub fn variants(bytes: &[u8]) {
    read("a.vcf", bytes, (b"", b""));
}

/// `.bed`, `.bim` and `.fam`, each behind its length in two bytes.
pub fn plink(bytes: &[u8]) {
    let part = |bytes: &[u8]| -> (Vec<u8>, Vec<u8>) {
        let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return (bytes.to_vec(), vec![]) };
        let (part, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        (part.to_vec(), rest.to_vec())
    };
    let (bim, rest) = part(bytes);
    let (fam, rest) = part(&rest);
    read("a.bed", &[&[0x6c, 0x1b, 0x01], rest.as_slice()].concat(), (&bim, &fam));
    read("a.bed", bytes, (&bim, &fam));
}

/// A table: every value is one of its column.
pub fn table(bytes: &[u8]) {
    let dictionary = Dictionary::parse(DICTIONARY).expect("a dictionary");
    let config = Config::parse(RECIPE).expect("a recipe");
    let mappings = config.mappings(&dictionary).expect("mappings");
    let table = config.table.first().expect("a table");
    let mut kinds = vec![];
    let read = table::read(table, bytes, &mappings, &mut |said| {
        match said {
            Said::Columns(columns) => {
                kinds = columns.iter().map(|place| &dictionary.columns.get(*place as usize).expect("a column").kind).collect();
            }
            Said::Values(rows) => {
                for row in rows.rows {
                    assert!(!row.id.is_empty() && row.cells.len() == kinds.len());
                    assert!(row.cells.iter().zip(&kinds).all(|(cell, kind)| cell.value(kind).is_some()));
                }
            }
            _ => panic!("what no table says"),
        }
        Ok(())
    });
    assert!(read.is_ok());
}

/// A key and a file for it, with these packets in its header beside the one that is needed.
#[must_use]
pub fn encrypted(content: &[u8], reader: &Crypt4ghKey, packets: &[&[u8]]) -> Vec<u8> {
    crypt4gh::encrypted(content, reader, packets).expect("a file")
}

/// Crypt4GH: the bytes as a file, and as a packet that the reader's key opens, such as an edit list.
pub fn crypt4gh(bytes: &[u8]) {
    let key = Crypt4ghKey::from_bytes(&Zeroizing::new([7; 32]));
    let content: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let known = encrypted(&content, &key, &[bytes]);
    for file in [bytes, known.as_slice()] {
        let mut out = Vec::new();
        if let Ok(plain) = Decrypted::new(file, &key) {
            let _ = plain.take(1 << 20).read_to_end(&mut out);
        }
        assert!(out.len() <= content.len().max(bytes.len()));
    }
}

/// The texts that a site is given: a catalogue, a dictionary, a recipe.
pub fn documents(bytes: &[u8]) {
    let _ = Catalogue::parse(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let dictionary = Dictionary::parse(text);
    let known = Dictionary::parse(DICTIONARY).expect("a dictionary");
    if let Ok(config) = Config::parse(text) {
        let _ = config.mappings(&known);
    }
    if let Ok(dictionary) = dictionary {
        let _ = Config::parse(RECIPE).expect("a recipe").mappings(&dictionary);
    }
}

/// What an importer says, as bytes: it is some message, or none.
pub fn said(bytes: &[u8]) {
    let _ = postcard::from_bytes::<Said>(bytes);
}
