//! Simulated people as hospitals deliver them: each site in its own coding, with what goes wrong at real ones.
//!
//! *In*: a [`Study`] and a folder that is not there yet. *Out*: `siteN/` (genotypes, `people.csv`, `DATASET.toml` and the documents that it names) and
//! `truth.tsv`. Sites take turns at three codings:
//!
//! | | contigs | table | LDL | sex | genotypes |
//! |---|---|---|---|---|---|
//! | 1 | `1` | comma | mmol/L | F, M | as they are |
//! | 2 | `chr1` | tab, `NA` | mg/dL | 2, 1 | one in 1,000 missing |
//! | 3 | `1` | semicolon, decimal comma, `-9` | mmol/L | female, male | one variant in 100 with REF and ALT swapped, one on the other strand |

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::Path;

use noodles_bgzf as bgzf;
use rand::SeedableRng as _;
use rand_pcg::Pcg64;
use statrs::distribution::{InverseCDF as _, Normal};

use super::Study;
use super::haplotypes::{BLOCK, FOUNDERS, Founders, below, unit};
use super::people::{Mosaic, Square};

const BUILD: &str = "GRCh38";
/// Of the trait: mean and standard deviation, in mmol/L.
const LDL: (f64, f64) = (3.3, 0.9);
const MG_PER_MMOL: f64 = 38.67;

/// One variant, as the truth has it.
struct Variant {
    contig: u32,
    position: u64,
    reference: char,
    alternate: char,
    frequency: f64,
    /// Of an alternate allele, in mmol/L.
    effect: f64,
}

/// How a site writes a variant down.
#[derive(Clone, Copy, PartialEq)]
enum Written {
    Straight,
    Swapped,
    OtherStrand,
}

/// A site's files, while they are written.
struct Site {
    number: u32,
    coding: u32,
    people: usize,
    mosaic: Mosaic,
    random: Pcg64,
    genotypes: Genotypes,
    /// What their genotypes add to each person's trait, in mmol/L.
    genetic: Vec<f64>,
}

enum Genotypes {
    Bed { bed: BufWriter<File>, bim: BufWriter<File>, row: Vec<u8> },
    Vcf { out: Box<bgzf::io::MultithreadedWriter<File>>, row: Vec<u8> },
}

/// Writes the whole study. `progress` is told how many variants are done.
pub(crate) fn write(study: &Study, folder: &Path, progress: &mut dyn FnMut(u64)) -> Result<()> {
    std::fs::create_dir(folder)?;
    let mut random = Pcg64::seed_from_u64(study.seed);
    let mut sites = (0..study.sites).map(|number| Site::new(study, folder, number)).collect::<Result<Vec<_>>>()?;
    let mut catalogue = format!("#catalogue\tsimulated\n#build\t{BUILD}\ncontig\tposition\tref\talt\taf\n");
    let mut truth = "contig\tposition\tref\talt\tfrequency\teffect_mmol_l\n".to_owned();
    let blocks = study.variants.div_ceil(BLOCK as u32);
    let mut last = (0, 0);
    for block in 0..blocks {
        let founders = Founders::draw(&mut random);
        let here = (study.variants - block * BLOCK as u32).min(BLOCK as u32);
        let mut variants = Vec::new();
        for number in 0..here {
            let at = block * BLOCK as u32 + number;
            variants.push(Variant::draw(study, at, &founders, number as usize, &mut last, &mut random));
        }
        for variant in &variants {
            let Variant { contig, position, reference, alternate, frequency, effect } = variant;
            let _ = writeln!(catalogue, "{contig}\t{position}\t{reference}\t{alternate}\t{frequency:.6}");
            let _ = writeln!(truth, "{contig}\t{position}\t{reference}\t{alternate}\t{frequency:.6}\t{effect:.6}");
        }
        for site in &mut sites {
            site.block(&founders, &variants)?;
        }
        progress(u64::from(block * BLOCK as u32 + here));
    }
    std::fs::write(folder.join("truth.tsv"), truth)?;
    for (number, site) in sites.into_iter().enumerate() {
        site.finish(study, &folder.join(format!("site{}", number + 1)), &catalogue)?;
    }
    Ok(())
}

impl Variant {
    fn draw(study: &Study, at: u32, founders: &Founders, of: usize, last: &mut (u32, u64), random: &mut Pcg64) -> Self {
        let contig = 1 + (u64::from(at) * 22 / u64::from(study.variants)) as u32;
        let before = if last.0 == contig { last.1 } else { 10_000 };
        // As dense as there is room for on the shortest chromosome.
        let most = (40_000_000 * 22 / u64::from(study.variants)).clamp(1, 20_000);
        *last = (contig, before + 1 + below(random, most as usize) as u64);
        // No A/T and C/G: those look the same on both strands.
        let (reference, alternate) = match below(random, 4) {
            0 => ('A', 'G'),
            1 => ('C', 'T'),
            2 => ('G', 'T'),
            _ => ('A', 'C'),
        };
        let (reference, alternate) = if below(random, 2) == 0 { (reference, alternate) } else { (alternate, reference) };
        let count = founders.counts.get(of).copied().unwrap_or(0);
        let frequency = f64::from(count) / FOUNDERS as f64;
        // One causal variant in each of as many equal stretches.
        let causal = (u64::from(at) + 1) * u64::from(study.causal) / u64::from(study.variants)
            > u64::from(at) * u64::from(study.causal) / u64::from(study.variants);
        let sign = if below(random, 2) == 0 { 1.0 } else { -1.0 };
        let share = study.heritability / f64::from(study.causal.max(1));
        let effect = sign * LDL.1 * (share / (2.0 * frequency * (1.0 - frequency))).sqrt();
        Self { contig, position: last.1, reference, alternate, frequency, effect: if causal { effect } else { 0.0 } }
    }
}

fn complement(base: char) -> char {
    match base {
        'A' => 'T',
        'C' => 'G',
        'G' => 'C',
        _ => 'A',
    }
}

impl Site {
    fn new(study: &Study, folder: &Path, number: u32) -> Result<Self> {
        let dir = folder.join(format!("site{}", number + 1));
        std::fs::create_dir(&dir)?;
        let mut random = Pcg64::seed_from_u64(study.seed ^ (u64::from(number) + 1) << 32);
        let people = study.people as usize;
        let mosaic = Mosaic::new(people, &mut random);
        let create = |name: &str| File::create(dir.join(name));
        let genotypes = if study.vcf {
            let workers = std::thread::available_parallelism()?;
            let mut out = Box::new(bgzf::io::MultithreadedWriter::with_worker_count(workers, create("cohort.vcf.gz")?));
            let mut head = format!("##fileformat=VCFv4.3\n##reference={BUILD}\n");
            (1..=22).for_each(|contig| head += &format!("##contig=<ID={}{contig}>\n", prefix(number % 3)));
            head += "##FORMAT=<ID=GT,Number=1,Type=String,Description=\"Genotype\">\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT";
            (0..people).for_each(|person| head += &format!("\t{}", id(number, person)));
            writeln!(out, "{head}")?;
            Genotypes::Vcf { out, row: vec![] }
        } else {
            let mut bed = BufWriter::with_capacity(1 << 20, create("cohort.bed")?);
            bed.write_all(&[0x6c, 0x1b, 0x01])?;
            let mut fam = BufWriter::new(create("cohort.fam")?);
            (0..people).try_for_each(|person| writeln!(fam, "0 {} 0 0 0 -9", id(number, person)))?;
            fam.flush()?;
            Genotypes::Bed { bed, bim: BufWriter::new(create("cohort.bim")?), row: vec![] }
        };
        Ok(Self { number, coding: number % 3, people, mosaic, random, genotypes, genetic: vec![0.0; people] })
    }

    fn block(&mut self, founders: &Founders, variants: &[Variant]) -> Result<()> {
        self.mosaic.step(&mut self.random);
        let squares: Vec<Square> = self.mosaic.squares(founders).collect();
        for (at, variant) in variants.iter().enumerate() {
            let alleles = || squares.iter().map(|square| (square.first.get(at), square.second.get(at)));
            let alleles = || alleles().map(|(first, second)| (first.copied().unwrap_or(0), second.copied().unwrap_or(0)));
            if variant.effect != 0.0 {
                for (genetic, (first, second)) in self.genetic.chunks_mut(64).zip(alleles()) {
                    for (person, genetic) in genetic.iter_mut().enumerate() {
                        let copies = (first >> person & 1) + (second >> person & 1);
                        *genetic += variant.effect * (copies as f64 - 2.0 * variant.frequency);
                    }
                }
            }
            let written = match (self.coding, below(&mut self.random, 100)) {
                (2, 0) => Written::Swapped,
                (2, 1) => Written::OtherStrand,
                _ => Written::Straight,
            };
            let missing = if self.coding == 1 { self.people / 1_000 } else { 0 };
            let missing: Vec<usize> = (0..missing).map(|_| below(&mut self.random, self.people)).collect();
            self.genotypes.write(variant, prefix(self.coding), written, self.people, alleles(), &missing)?;
        }
        Ok(())
    }

    fn finish(self, study: &Study, dir: &Path, catalogue: &str) -> Result<()> {
        let Self { number, coding, people, mut random, genotypes, genetic, .. } = self;
        genotypes.finish()?;
        std::fs::write(dir.join("catalogue.tsv"), catalogue)?;
        std::fs::write(dir.join("dictionary.toml"), DICTIONARY)?;
        let files = if study.vcf { "cohort.vcf.gz" } else { "cohort.bed" };
        std::fs::write(dir.join("DATASET.toml"), recipe(coding, people, files))?;
        let normal = Normal::new(0.0, 1.0).expect("mean 0 and sd 1 are a normal distribution");
        let mut table = BufWriter::new(File::create(dir.join("people.csv"))?);
        let head = match coding {
            0 => "id,sex,age,smoker,ldl",
            1 => "SUBJECT\tGENDER\tAGE_YRS\tSMOKING\tLDL (mg/dL)",
            _ => "Patient;Sex;Age;Smoker;LDL-C",
        };
        writeln!(table, "{head}")?;
        let (mean, sd) = LDL;
        for (person, genetic) in genetic.iter().enumerate() {
            let (woman, smoker) = (below(&mut random, 2) == 0, below(&mut random, 5) == 0);
            let age = 18 + below(&mut random, 70);
            let rest = sd * (1.0 - study.heritability).max(0.0).sqrt() * normal.inverse_cdf(unit(&mut random).min(1.0 - 1e-12));
            let ldl = (mean + 0.01 * (age as f64 - 53.0) + genetic + rest).clamp(0.3, 15.0);
            let id = id(number, person);
            let unknown = coding > 0 && below(&mut random, 200) == 0;
            match coding {
                0 => writeln!(table, "{id},{},{age},{},{ldl:.3}", if woman { "F" } else { "M" }, u8::from(smoker))?,
                1 => {
                    let ldl = if unknown { "NA".to_owned() } else { format!("{:.1}", ldl * MG_PER_MMOL) };
                    writeln!(table, "{id}\t{}\t{age}\t{}\t{ldl}", if woman { 2 } else { 1 }, if smoker { "Y" } else { "N" })?;
                }
                _ => {
                    let ldl = if unknown { "-9".to_owned() } else { format!("{ldl:.3}").replace('.', ",") };
                    let (sex, smoker) = (if woman { "female" } else { "male" }, if smoker { "yes" } else { "no" });
                    writeln!(table, "{id};{sex};{age};{smoker};{ldl}")?;
                }
            }
        }
        table.flush()
    }
}

impl Genotypes {
    fn write(
        &mut self,
        variant: &Variant,
        prefix: &str,
        written: Written,
        people: usize,
        alleles: impl Iterator<Item = (u64, u64)>,
        missing: &[usize],
    ) -> Result<()> {
        let Variant { contig, position, reference, alternate, .. } = variant;
        let (reference, alternate) = match written {
            Written::Straight => (*reference, *alternate),
            Written::Swapped => (*alternate, *reference),
            Written::OtherStrand => (complement(*reference), complement(*alternate)),
        };
        // Where they are swapped, what is called the alternate is what the others call the reference.
        let flip = if written == Written::Swapped { u64::MAX } else { 0 };
        match self {
            Self::Bed { bed, bim, row } => {
                row.clear();
                for (first, second) in alleles {
                    let (first, second) = (first ^ flip, second ^ flip);
                    // Two copies of the first allele of .bim, the alternate, are 00; one 10; none 11.
                    let (low, high) = (spread(!(first | second)), spread(!(first & second)));
                    low.iter().zip(high).for_each(|(low, high)| row.extend((low | high << 1).to_le_bytes()));
                }
                row.truncate(people.div_ceil(4));
                for &person in missing {
                    let shift = 2 * (person % 4);
                    row.iter_mut().skip(person / 4).take(1).for_each(|byte| *byte = *byte & !(3 << shift) | 1 << shift);
                }
                // What is beyond the last person is zero.
                if let (Some(last), beyond @ 1..) = (row.last_mut(), 2 * (people % 4)) {
                    *last &= (1 << beyond) - 1;
                }
                bed.write_all(row)?;
                writeln!(bim, "{prefix}{contig}\t{contig}:{position}\t0\t{position}\t{alternate}\t{reference}")
            }
            Self::Vcf { out, row } => {
                row.clear();
                write!(row, "{prefix}{contig}\t{position}\t.\t{reference}\t{alternate}\t.\tPASS\t.\tGT")?;
                let start = row.len();
                for (first, second) in alleles {
                    let (first, second) = (first ^ flip, second ^ flip);
                    for person in 0..64 {
                        let digit = |word: u64| b'0' + (word >> person & 1) as u8;
                        row.extend([b'\t', digit(first), b'|', digit(second)]);
                    }
                }
                row.truncate(start + 4 * people);
                for &person in missing {
                    row.iter_mut().skip(start + 4 * person).take(4).zip(*b"\t.|.").for_each(|(byte, with)| *byte = with);
                }
                row.push(b'\n');
                out.write_all(row)
            }
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Bed { mut bed, mut bim, .. } => bed.flush().and_then(|()| bim.flush()),
            Self::Vcf { mut out, .. } => out.finish().map(|_| ()),
        }
    }
}

/// 64 bits as 128, in every second place.
fn spread(bits: u64) -> [u64; 2] {
    [bits & 0xffff_ffff, bits >> 32].map(|half| {
        let half = (half | half << 16) & 0x0000_ffff_0000_ffff;
        let half = (half | half << 8) & 0x00ff_00ff_00ff_00ff;
        let half = (half | half << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        let half = (half | half << 2) & 0x3333_3333_3333_3333;
        (half | half << 1) & 0x5555_5555_5555_5555
    })
}

fn id(site: u32, person: usize) -> String {
    format!("S{}-{:07}", site + 1, person + 1)
}

const fn prefix(coding: u32) -> &'static str {
    if coding == 1 { "chr" } else { "" }
}

const DICTIONARY: &str = "name = \"simulated\"\nversion = \"1\"\n\n[[column]]\nname = \"sex\"\ntype = \"levels\"\nlevels = [\"female\", \"male\"]\n\n\
    [[column]]\nname = \"age\"\ntype = \"number\"\nunit = \"years\"\nlower = 0\nupper = 120\n\n[[column]]\nname = \"smoker\"\ntype = \"flag\"\n\n\
    [[column]]\nname = \"ldl\"\ntype = \"number\"\nunit = \"mmol/L\"\nlower = 0\nupper = 7\n";

fn recipe(coding: u32, people: usize, files: &str) -> String {
    let table = match coding {
        0 => "file = \"people.csv\"\nid = \"id\"\n[map.sex]\ncolumn = \"sex\"\nlevels = { F = \"female\", M = \"male\" }\n[map.age]\ncolumn = \"age\"\n\
              [map.smoker]\ncolumn = \"smoker\"\nyes = [\"1\"]\nno = [\"0\"]\n[map.ldl]\ncolumn = \"ldl\"\n".to_owned(),
        1 => format!(
            "file = \"people.csv\"\nid = \"SUBJECT\"\nseparator = \"\\t\"\nmissing = [\"NA\"]\n[map.sex]\ncolumn = \"GENDER\"\n\
             levels = {{ 1 = \"male\", 2 = \"female\" }}\n[map.age]\ncolumn = \"AGE_YRS\"\n[map.smoker]\ncolumn = \"SMOKING\"\nyes = [\"Y\"]\n\
             no = [\"N\"]\n[map.ldl]\ncolumn = \"LDL (mg/dL)\"\nscale = {:.8}\n",
            1.0 / MG_PER_MMOL
        ),
        _ => "file = \"people.csv\"\nid = \"Patient\"\nseparator = \";\"\ndecimal = \",\"\nmissing = [\"-9\"]\n[map.sex]\ncolumn = \"Sex\"\n\
              [map.age]\ncolumn = \"Age\"\n[map.smoker]\ncolumn = \"Smoker\"\nyes = [\"yes\"]\nno = [\"no\"]\n[map.ldl]\ncolumn = \"LDL-C\"\n".to_owned(),
    };
    format!(
        "name             = \"cohort\"\nabout            = \"Simulated people\"\napproximate_size = {people}\ndictionary       = \"dictionary.toml\"\n\
         duo              = [\"DUO:0000042\"]\nbudget           = {{ epsilon = 10.0, delta = 1e-6 }}\n\n[[table]]\n{table}\n[variants]\n\
         files     = [\"{files}\"]\nbuild     = \"{BUILD}\"\ncatalogue = [\"catalogue.tsv\"]\n"
    )
}
