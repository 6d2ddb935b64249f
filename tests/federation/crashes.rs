//! Killed daemons: SIGKILL at moments spread over a two-round job, then a restart. No job is lost, no round is charged twice, and
//! what the coordinator holds is what the site's ledger holds, byte for byte; every log verifies.

use std::time::{Duration, Instant};

use crate::world::World;

const JOB: &str = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 2\n[params]\noutcome = \"trait\"\ncovariates = [\"age\"]\n\
    catalogue = \"panel\"\nslices = [[\"8\", 1, 150_000_000]]\n";

#[test]
fn kills_lose_no_job_and_charge_no_round_twice() {
    let mut world = World::new(&["kyoto", "leiden"]);
    // Learn how long a job takes here, to spread the kills over it.
    let start = Instant::now();
    assert_eq!(world.ended(&world.submitted("linear-association", JOB))["state"], "finished");
    let usual = start.elapsed();
    let mut jobs = Vec::new();
    for attempt in 0..8_u32 {
        let job = world.submitted("linear-association", JOB);
        let moment = Instant::now() + usual.mul_f64(f64::from(attempt / 2) / 6.0);
        while Instant::now() < moment {
            std::thread::sleep(Duration::from_millis(1));
        }
        if attempt % 2 == 0 {
            world.kill_coordinator();
            world.start_coordinator();
        } else {
            world.kill_site("leiden");
            world.start_site("leiden");
        }
        let status = world.ended(&job);
        assert_eq!(status["state"], "finished", "attempt {attempt}: {status}\n{}", world.log());
        jobs.push(job);
    }
    let coordinator = rusqlite::Connection::open(world.dir().join("coordinator/coordinator.sqlite")).unwrap();
    for site in ["kyoto", "leiden"] {
        let log = world.ok(&["log", "verify", site]);
        assert_eq!((&log["whole"], &log["releases"]), (&true.into(), &(2 * (jobs.len() + 1)).into()), "{log}");
        let ledger = rusqlite::Connection::open(world.dir().join(site).join("ledger.sqlite")).unwrap();
        for job in &jobs {
            let charges: i64 = ledger.query_row("SELECT COUNT(*) FROM charge WHERE job = ?1", [job], |row| row.get(0)).unwrap();
            assert_eq!(charges, 2, "{site} {job}");
            let (reserved, spent): (i64, i64) = ledger
                .query_row("SELECT reserved_rho, spent_rho FROM job_account WHERE job = ?1", [job], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            assert!(spent <= reserved && spent * 100 >= reserved * 99, "{site} {job}: {spent} of {reserved}");
            for round in 0..2 {
                let held: Vec<u8> = coordinator
                    .query_row(
                        "SELECT json FROM release WHERE job = ?1 AND round = ?2 AND site = ?3",
                        (job, round, site),
                        |row| row.get(0),
                    )
                    .unwrap();
                let kept: Vec<u8> = ledger
                    .query_row("SELECT bytes FROM release WHERE job = ?1 AND round = ?2", (job, round), |row| row.get(0))
                    .unwrap();
                assert_eq!(held, kept, "{site} {job} round {round}");
            }
        }
    }
}
