//! `cargo speed -- cluster`: the same rounds by two threads of this machine and by two tasks of a Slurm on it, started for the purpose. The sums must
//! be the same; what is measured is what a queue, a folder and two more processes cost. No task waits for its delay here: a site's do, as its
//! releases do where threads run its rounds.

use vestibule_runtime::executor::Executor;
use vestibule_runtime::trial;

use crate::slurm::cluster::Cluster;
use crate::slurm::round::{KINDS, Laid, no_time};
use crate::{median, row};

pub(super) fn cluster() {
    let Some(cluster) = Cluster::start() else { return };
    let (people, variants) = (50_000, 20_000);
    let laid = Laid::simulated(people, variants);
    let (threads, slurm) = (laid.threads(2), laid.slurm(&cluster));
    row("rounds over", format!("{people} simulated people x {variants} variants"));
    for kind in KINDS {
        let round = laid.round(kind);
        let mut sums = vec![];
        let mut seconds =
            |executor: &dyn Executor| median(3, || sums.push(trial::exact_by(executor, round.work(&laid, no_time())).unwrap()));
        let (here, there) = (seconds(&*threads), seconds(&*slurm));
        assert!(sums.iter().all(|found| *found == sums[0]), "{kind:?}: other sums");
        row(&format!("{kind:?}, two threads"), format!("{here:.2} s"));
        row(&format!("{kind:?}, two tasks of Slurm: the same sums"), format!("{there:.2} s ({:.2} s more)", there - here));
    }
}
