//! Datasets whose rows lie in a bucket: the same answers, nothing half there, nothing left behind.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::*;
use crate::dataset::bucket::Bucket;
use crate::dataset::withdrawal::withdraw;

const PEOPLE: &str = "id,age,sex\nA,30,F\nB,40,M\n";

struct Far {
    case: Case,
    store: Arc<InMemory>,
    waits: tokio::runtime::Runtime,
}

impl Far {
    fn new() -> Self {
        let genotypes = vcf("A\tB", &["1 100 . A C . . . GT 0/1 1/1", "2 50 . C T . . . GT 1/1 0/0"]);
        let case = Case::new(&[("people.csv", PEOPLE), ("a.vcf", &genotypes)]);
        let waits = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { case, store: Arc::new(InMemory::new()), waits }
    }

    fn data(&self) -> DataFolder {
        let store = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
        DataFolder::new(self.case.dir(), Some(Arc::new(Bucket::of(store, "s3://bucket", "site").unwrap())))
    }

    fn ingest(&self) -> Result<IngestReport, IngestError> {
        let source = Dir::open_ambient_dir(self.case.temp.path(), ambient_authority()).unwrap();
        ingest_tuned(
            &source,
            &format!("{HEAD}{TABLE}{VARIANTS}"),
            (&self.data(), &key()),
            &importers(),
            &mut |_| {},
            Tuning::default(),
        )
    }

    fn open(&self) -> Result<Dataset, DatasetError> {
        Dataset::open(&self.data(), &"cohort".parse().unwrap(), &key())
    }

    /// The names of all objects, in order.
    fn objects(&self) -> Vec<ObjectPath> {
        let listed = self.waits.block_on(self.store.list_with_delimiter(Some(&ObjectPath::from("site")))).unwrap();
        listed.objects.into_iter().map(|object| object.location).collect()
    }

    fn get(&self, object: &ObjectPath) -> Vec<u8> {
        self.waits.block_on(async { self.store.get(object).await.unwrap().bytes().await.unwrap() }).to_vec()
    }

    fn put(&self, object: &ObjectPath, bytes: Vec<u8>) {
        self.waits.block_on(self.store.put(object, bytes.into())).unwrap();
    }
}

#[test]
fn rows_in_a_bucket_are_those_of_a_folder_and_only_what_is_named_is_asked_for() {
    let (near, far) = (Far::new(), Far::new());
    near.case.ingest(&format!("{HEAD}{TABLE}{VARIANTS}")).unwrap();
    assert_eq!(far.ingest().unwrap().individuals, 2);
    let dataset = far.open().unwrap();
    let sorted = |dataset: &Dataset| {
        let mut rows = rows(dataset, &["age", "sex"], &everything());
        rows.sort_by(|a, b| a.1.cmp(&b.1));
        rows
    };
    assert!(sorted(&dataset) == sorted(&near.case.open()));
    assert_eq!(dataset.place(), "s3://bucket/site");
    let objects = far.objects();
    assert_eq!(objects.len(), 1);
    // Its name says nothing, nor does what is in it; no rows lie in the folder.
    let version = far.case.dir().read_to_string("cohort/current").unwrap();
    assert!(!far.case.dir().exists(format!("cohort/{version}/people.rows")));
    let bytes = far.get(&objects[0]);
    assert!(!objects[0].as_ref().contains("cohort") && !contains(&bytes, b"cohort"));
    // A column of two people is one bit each and 8 bytes, sealed.
    let dataset = far.open().unwrap();
    let (selection, before) = (dataset.select(&["age".into()], &[]).unwrap(), dataset.bytes_read());
    (0..dataset.row_groups()).for_each(|group| drop(dataset.read(&selection, group).unwrap()));
    let read = dataset.bytes_read() - before;
    assert!((16 + 17..=2 * (16 + 17)).contains(&read), "{read}");
}

#[test]
fn a_dataset_in_a_bucket_grows_from_what_lies_there() {
    let (near, far) = (Far::new(), Far::new());
    near.case.ingest(&format!("{HEAD}{TABLE}{VARIANTS}")).unwrap();
    far.ingest().unwrap();
    let first = far.objects();
    for case in [&near.case, &far.case] {
        case.put("b.vcf", &vcf("C", &["1 100 . A C . . . GT 1/1"]));
    }
    near.case.ingest(&format!("{HEAD}{TABLE}{VARIANTS}")).unwrap();
    assert_eq!(far.ingest().unwrap().taken_over, 1);
    assert!(far.objects().len() == 1 && far.objects() != first);
    assert!(rows(&far.open().unwrap(), &["age"], &everything()) == rows(&near.case.open(), &["age"], &everything()));
    // Where the object is gone, the files are read.
    far.waits.block_on(far.store.delete(&far.objects()[0])).unwrap();
    for case in [&near.case, &far.case] {
        case.put("c.vcf", &vcf("D", &["1 100 . A C . . . GT 1/1"]));
    }
    let report = far.ingest().unwrap();
    assert!(report.taken_over == 0 && report.individuals == 4 && report.read_again.values().eq([&3]), "{report}");
}

/// Anyone who owns the bucket would see from the moments of requests how long guests took.
#[test]
fn what_was_fetched_is_read_without_asking_the_bucket() {
    let far = Far::new();
    far.ingest().unwrap();
    let dataset = far.open().unwrap();
    let selection = dataset.select(&["age".into()], &everything()).unwrap();
    dataset.fetch(&selection).unwrap();
    far.waits.block_on(far.store.delete(&far.objects()[0])).unwrap();
    let before = dataset.bytes_read();
    dataset.fetch(&selection).unwrap();
    let people: usize = (0..dataset.row_groups()).map(|group| dataset.read(&selection, group).unwrap().len()).sum();
    assert_eq!((people, dataset.bytes_read()), (2, before));
    let other = dataset.select(&["sex".into()], &[]).unwrap();
    assert_eq!(dataset.read(&other, 0).unwrap_err().code(), "storage-missing");
}

#[test]
fn what_a_bucket_did_to_an_object_is_noticed() {
    let far = Far::new();
    far.ingest().unwrap();
    let old = far.objects()[0].clone();
    let older = far.get(&old);
    far.case.put("people.csv", &PEOPLE.replace("40", "41"));
    far.ingest().unwrap();
    let object = far.objects()[0].clone();
    let good = far.get(&object);
    assert!(object != old && far.objects().len() == 1, "the object of the version before is removed");
    let code = || far.open().map(|_| ()).map_err(|error| error.code());
    assert_eq!(code(), Ok(()));
    for other in [older, good[..good.len() - 1].to_vec(), vec![], b"PAR1".to_vec()] {
        far.put(&object, other);
        assert_eq!(code(), Err("dataset-damaged"));
    }
    let mut changed = good.clone();
    changed[70] ^= 1;
    far.put(&object, changed);
    let dataset = far.open().unwrap();
    let selection = dataset.select(&["age".into(), "sex".into()], &[]).unwrap().with_places();
    let found = (0..dataset.row_groups()).map(|group| dataset.read(&selection, group).map(|_| ()));
    assert_eq!(found.filter_map(Result::err).map(|error| error.code()).next(), Some("dataset-damaged"));
    far.put(&object, good);
    let dataset = far.open().unwrap();
    far.waits.block_on(far.store.delete(&object)).unwrap();
    // Removed while it is open, and before.
    assert_eq!(dataset.read(&selection, 0).unwrap_err().code(), "storage-missing");
    let error = far.open().unwrap_err();
    assert!(error.code() == "storage-missing" && error.to_string().contains(&format!("s3://bucket/{object}")), "{error}");
    // The site's settings say nothing of a bucket any more, or another.
    let error = Dataset::open(&DataFolder::from(far.case.dir()), &"cohort".parse().unwrap(), &key()).unwrap_err();
    assert!(error.code() == "storage-settings" && error.to_string().contains("s3://bucket/site"), "{error}");
}

#[test]
fn withdrawals_and_killed_ingests_leave_nothing_behind() {
    let far = Far::new();
    far.ingest().unwrap();
    let first = far.objects();
    let done = withdraw(&far.data(), &"cohort".parse().unwrap(), &["B".to_owned()], &key()).unwrap();
    assert_eq!(done.removed, 1);
    let second = far.objects();
    assert!(second.len() == 1 && second != first);
    assert_eq!(rows(&far.open().unwrap(), &["age"], &[]).len(), 1);
    // One that was killed as it wrote: its folder says which object it had begun.
    let killed = ObjectPath::from("site/0123.rows");
    far.put(&killed, vec![1]);
    far.case.dir().create_dir("cohort/v0123").unwrap();
    far.case.dir().write("cohort/v0123/people.object", "s3://bucket/site/0123.rows").unwrap();
    assert_eq!(far.objects().len(), 2);
    far.case.put("people.csv", &PEOPLE.replace("30", "31"));
    far.ingest().unwrap();
    let third = far.objects();
    assert!(third.len() == 1 && third != second && third[0] != killed);
    // Settings that speak of no bucket: the new rows serve from the folder, and it is said what is left to remove.
    far.case.put("people.csv", PEOPLE);
    let error = far.case.ingest(&format!("{HEAD}{TABLE}{VARIANTS}")).unwrap_err();
    assert!(error.code() == "storage-settings" && error.to_string().contains("s3://bucket/site"), "{error}");
    assert_eq!(Dataset::open(&far.case.data(), &"cohort".parse().unwrap(), &key()).unwrap().place(), "data");
    assert_eq!(far.objects(), third);
}
