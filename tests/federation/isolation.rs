//! No instance finds anything of another: at the very settings in which sites run guests, whatever the one before did and however it
//! ended, in every slot of memory, in threads and in worker processes. And `prepare`, which all of them begin with, is held to its limits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use vestibule_protocol::job::Limits;
use vestibule_protocol::round::{Bound, Round, RoundRequest, Statistic};
use vestibule_protocol::scores::Source;
use vestibule_sandbox::{Contribution, Given, GuestError, Individual, LoadError, Runner, Sandbox, Settings};
use vestibule_worker::{Launch, Rehearsals, Worker, WorkerError};

use crate::world::{BINARY, root};

const LIMITS: Limits = Limits { fuel_per_partition: 60_000_000, memory_mib: 6 };

/// A core module as an analysis.
fn encoded(wat: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path(root().join("wit")).unwrap();
    let world = resolve.select_world(&[package], Some("analysis")).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8, false).unwrap();
    wit_component::ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

const GUEST: &str = include_str!("isolation.wat");

fn round(state: u8) -> Round {
    let statistic = Statistic { name: "found".into(), length: 64, bound: Bound::OneCell, weight: 1.0, source: Source::Given };
    let request = RoundRequest { statistics: vec![statistic], budget_share: 1.0, state: vec![state], dosages: true };
    Round::check(request).unwrap()
}

/// How an instance ends, by its first dosage.
const RETURN: u8 = 0;
const TRAP: u8 = 1;
const LOOP: u8 = 2;
const GROW: u8 = 3;
const GROW_AND_TRAP: u8 = 4;
const LOOK_EVERYWHERE: u8 = 5;
const MARK_MANY: u8 = 6;
const LOOK_AGAIN: u8 = 7;
const OVERFLOW: u8 = 8;

/// A fixed order of all of them, the cheap ones more often.
fn manners(seed: u32) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        match state % 64 {
            0 => LOOP,
            1 => LOOK_EVERYWHERE,
            2..5 => TRAP,
            5..8 => GROW,
            8..11 => GROW_AND_TRAP,
            11..16 => MARK_MANY,
            16 => OVERFLOW,
            _ => RETURN,
        }
    })
}

const fn fails(how: u8) -> bool {
    matches!(how, TRAP | LOOP | GROW_AND_TRAP | OVERFLOW)
}

fn contribute(runner: &Runner, how: u8) -> Option<u32> {
    let found = runner.contribute(&[Individual { values: &[], dosages: &[how] }]).ok()?;
    let [Contribution::Cell(cell)] = found.as_slice() else { panic!("a cell") };
    Some(*cell)
}

#[test]
fn no_instance_finds_a_mark_of_another() {
    // As many threads as use every slot, each of which was left by another thread's instance.
    const THREADS: u32 = 4;
    const EACH: u32 = 10_000;
    let settings = Settings { threads: THREADS as usize, max_memory_mib: 64, ..Settings::default() };
    let analysis = Sandbox::new(settings).unwrap().load(&encoded(GUEST)).unwrap();
    let runner = analysis.runner(&round(0), LIMITS).unwrap();
    // Were an instance used twice, it would find all that it looks for.
    assert_eq!(contribute(&runner, LOOK_AGAIN), Some(1 + 2 + 4 + 8 + 16));
    let ran = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (runner, ran) = (&runner, &ran);
            scope.spawn(move || {
                for how in manners(thread + 1).take(EACH as usize) {
                    let want = (!fails(how)).then_some(0);
                    assert_eq!(contribute(runner, how), want, "after {how}");
                    ran.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(ran.into_inner(), THREADS * EACH);
}

/// What worker processes rehearse with: somebody who returns.
fn rehearsals() -> Rehearsals {
    let mut rehearsals = Rehearsals::default();
    rehearsals.push(&[(vec![], vec![RETURN])]);
    rehearsals
}

/// No worker is ended here.
fn none() -> Result<Worker, WorkerError> {
    panic!("a worker was ended")
}

/// A worker that took in a round of the guest.
fn worker(guest: &[u8], state: u8) -> Result<Worker, String> {
    let start = || Worker::start(&Launch::of(BINARY.into(), 64)).unwrap();
    let code = start().compile(guest).unwrap().map_err(|refusal| refusal.code.to_owned())?;
    let mut baking = start();
    baking.load(&code, guest).unwrap().unwrap();
    let code = baking.bake(&round(state), LIMITS).map_err(|error| error.code().to_owned())?;
    let mut worker = start();
    let code = code.map_err(|refusal| refusal.code.to_owned())?;
    worker.rehearse(&code, &round(state), LIMITS, (1, 0, 1), &rehearsals()).unwrap().unwrap();
    Ok(worker)
}

#[test]
fn no_instance_in_a_worker_process_finds_a_mark_of_another() {
    const PARTITIONS: usize = 10_000;
    let mut worker = worker(&encoded(GUEST), 0).unwrap();
    let hows: Vec<u8> = [LOOK_AGAIN].into_iter().chain(manners(9).take(PARTITIONS)).collect();
    let mut found = vec![];
    let mut take = |given: Option<&[Given<'_>]>| {
        found.push(given.map(|given| match given {
            [Given::Cell(cell)] => *cell,
            _ => panic!("a cell"),
        }));
        Ok::<_, WorkerError>(())
    };
    for how in &hows {
        worker.push(&[], &[*how]);
        if worker.close() {
            worker.run(&mut none, &mut take).unwrap();
        }
    }
    worker.run(&mut none, &mut take).unwrap();
    let want: Vec<Option<u32>> =
        hows.iter().map(|how| if *how == LOOK_AGAIN { Some(31) } else { (!fails(*how)).then_some(0) }).collect();
    assert_eq!(found, want);
}

/// A partition that takes longer than its limit, or brings its worker down, is one that contributes nothing; another worker goes on, and
/// what came before and comes after counts.
#[test]
fn a_partition_that_takes_too_long_costs_itself_and_nobody_else() {
    let guest = encoded(GUEST);
    // Fuel for a minute: what ends it is the limit.
    let limits = Limits { fuel_per_partition: 60_000_000_000, memory_mib: 6 };
    let start = || Worker::start(&Launch::of(BINARY.into(), 64)).unwrap();
    let code = start().compile(&guest).unwrap().unwrap();
    let mut baking = start();
    baking.load(&code, &guest).unwrap().unwrap();
    let code = baking.bake(&round(0), limits).unwrap().unwrap();
    let mut worker = start();
    let pages = worker.rehearse(&code, &round(0), limits, (1, 0, 1), &rehearsals()).unwrap().unwrap();
    worker.limit(Duration::from_millis(200));
    let ready = || {
        let mut worker = start();
        worker.follow(&code, &round(0), limits, (1, 0, 1), &pages).unwrap().unwrap();
        worker.limit(Duration::from_millis(200));
        worker
    };
    let mut started = 0;
    let hows = [LOOK_AGAIN, RETURN, LOOP, RETURN, LOOP, LOOK_AGAIN, RETURN, LOOP];
    let mut found = vec![];
    let mut standby = || {
        started += 1;
        Ok(ready())
    };
    let mut take = |given: Option<&[Given<'_>]>| {
        found.push(given.map(|given| match given {
            [Given::Cell(cell)] => *cell,
            _ => panic!("a cell"),
        }));
        Ok::<_, WorkerError>(())
    };
    for how in hows {
        worker.push(&[], &[how]);
        assert!(!worker.close(), "one batch");
    }
    let began = std::time::Instant::now();
    worker.run(&mut standby, &mut take).unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "none of them was let use its fuel");
    let want = hows.map(|how| match how {
        LOOP => None,
        LOOK_AGAIN => Some(31),
        _ => Some(0),
    });
    assert_eq!((found, started), (want.to_vec(), 3));
}

/// What `prepare` leaves is in every instance; what it must not do ends the round before any data is near.
#[test]
fn prepare_is_held_to_its_limits() {
    let sandbox = Sandbox::new(Settings { max_memory_mib: 64, ..Settings::default() }).unwrap();
    let guest = encoded(GUEST);
    let analysis = sandbox.load(&guest).unwrap();
    let refused = |state: u8, limits: Limits| analysis.runner(&round(state), limits).unwrap_err();
    // For ever; a trap.
    assert!(matches!(refused(1, LIMITS), GuestError::Trapped { function: "prepare", message } if message.contains("fuel")));
    assert!(matches!(refused(2, LIMITS), GuestError::Trapped { function: "prepare", .. }));
    // All memory that it may have: instances begin with it, find what was put there, and have none left to grow by.
    let full = analysis.runner(&round(3), LIMITS).unwrap();
    assert_eq!(contribute(&full, GROW), Some(8));
    assert_eq!(contribute(&full, GROW), Some(8));
    // The same where that is all that the engine gives anybody.
    assert!(analysis.runner(&round(3), Limits { memory_mib: 64, ..LIMITS }).is_ok());
    // More memory to start with than the job's limit: nothing of it is run.
    assert!(matches!(refused(0, Limits { memory_mib: 3, ..LIMITS }), GuestError::Trapped { function: "prepare", .. }));
    // Bytes that cannot be listed.
    let most = Limits { memory_mib: 64, ..LIMITS };
    assert!(matches!(refused(4, most), GuestError::Unusable { function: "prepare", message } if message.contains("stretches")));
    // In a worker the same.
    assert_eq!(worker(&guest, 1).unwrap_err(), "analysis-trapped");
    assert_eq!(worker(&guest, 2).unwrap_err(), "analysis-trapped");
    assert!(worker(&guest, 3).is_ok());
}

/// What a snapshot would leave out is refused before anything is compiled: tables, dropped segments, globals that are no numbers.
#[test]
fn a_component_whose_state_is_not_all_in_memory_is_refused() {
    let sandbox = Sandbox::new(Settings { max_memory_mib: 64, ..Settings::default() }).unwrap();
    let with = |items: &str, code: &str| {
        let head = "(global $next (mut i32)";
        let module = GUEST.replace(head, &format!("{items}\n{head}"));
        let locals = "(local $how i32) (local $found i32)";
        encoded(&module.replace(locals, &format!("{locals}\n{code}")))
    };
    assert!(sandbox.load(&with("", "")).is_ok());
    let table = "(table $t 4 funcref) (elem declare func $grow)";
    for (items, code, says) in [
        (table, "(table.set $t (i32.const 0) (ref.func $grow))", "table.set"),
        (table, "(drop (table.grow $t (ref.null func) (i32.const 1)))", "table.grow"),
        (table, "(table.fill $t (i32.const 0) (ref.null func) (i32.const 1))", "table.fill"),
        (table, "(table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 1))", "table.copy"),
        (
            "(table $t 4 funcref) (elem $e func $grow)",
            "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))",
            "table.init",
        ),
        ("(elem $e func $grow)", "(elem.drop $e)", "elem.drop"),
        ("", "(data.drop $passive)", "data.drop"),
        ("(global $r (mut funcref) (ref.null func))", "", "reference type"),
        ("(global $v (mut v128) (v128.const i64x2 0 0))", "", "v128"),
    ] {
        let component = with(items, code);
        let error = sandbox.load(&component).unwrap_err();
        assert!(matches!(&error, LoadError::Unbakeable { why } if why.contains(says)), "{says}: {error}");
        assert_eq!(vestibule_sandbox::inspect(&component).unwrap_err().code(), "component-unbakeable");
        assert_eq!(worker(&component, 0).unwrap_err(), "component-unbakeable");
    }
}
