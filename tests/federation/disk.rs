//! A coordinator whose disk is full: it says so, and all goes on by itself once there is room.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::world::{World, wait};

/// A small file system in a folder's place, for as long as this lives.
struct Small(PathBuf);

impl Small {
    fn mount(folder: PathBuf, size: &str) -> Option<Self> {
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&folder).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_job_outlasts_a_full_disk_without_a_restart() {
    let mut world = World::new(&["leiden"]);
    let toml = "epsilon = 0.5\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[params]\ncolumns = [\"sex\"]\n";
    world.kill_site("leiden");
    let job = world.submitted("cohort-summary", toml);
    world.kill_coordinator();
    let (folder, away) = (world.dir().join("coordinator"), world.dir().join("away"));
    std::fs::rename(&folder, &away).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let Some(small) = Small::mount(folder.clone(), "24m") else {
        eprintln!("a full disk was not tried: this user may not mount");
        return;
    };
    let copied = Command::new("cp").arg("-a").arg(away.join(".")).arg(&folder).status().unwrap();
    assert!(copied.success());
    world.start_coordinator();
    let fill = folder.join("fill");
    let mut full = std::fs::File::create(&fill).unwrap();
    while full.write_all(&[0; 4_096]).is_ok() {}
    world.start_site("leiden");
    wait("the disk to be missed", || world.log().contains("a job cannot go on").then_some(()));
    // It answers all the same.
    let (status, document) = world.document("ada", "GET", &format!("/v1/jobs/{job}"), b"");
    assert_eq!((status, &document["state"]), (200, &"running".into()), "{document}");
    // A file that is open keeps its room.
    drop(full);
    std::fs::remove_file(&fill).unwrap();
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    world.kill_coordinator();
    drop(small);
}
