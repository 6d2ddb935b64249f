use super::*;
use wasmtime::{Config, Engine, Instance, Module, Store, Trap};

fn engine() -> Engine {
    let mut config = Config::new();
    config.consume_fuel(true).operator_cost(COSTS.clone()).max_wasm_stack(512 << 10);
    Engine::new(&config).unwrap()
}

/// What `f` returns and how much fuel it took, or that its fuel was not enough.
fn run(text: &str, meter: bool, fuel: u64) -> (Option<i64>, u64) {
    let plain = wat::parse_str(text).unwrap();
    let bytes = if meter { module(&plain).unwrap() } else { plain };
    let engine = engine();
    let mut store = Store::new(&engine, ());
    store.set_fuel(fuel).unwrap();
    let module = Module::new(&engine, &bytes).unwrap();
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let f = instance.get_typed_func::<i64, i64>(&mut store, "f").unwrap();
    match f.call(&mut store, 3) {
        Ok(value) => (Some(value), fuel - store.get_fuel().unwrap()),
        Err(error) => {
            assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::OutOfFuel), "{error:#}");
            (None, fuel)
        }
    }
}

fn tail(operators: usize) -> String {
    "local.get 0 i64.const 3 i64.mul local.set 0 ".repeat(operators / 4)
}

#[test]
fn a_tail_behind_a_call_stops_when_the_fuel_is_gone() {
    let text = |depth: u64| {
        format!(
            "(module (func $f (param i64) (result i64)
               local.get 0 i64.eqz if else local.get 0 i64.const 1 i64.sub call $f drop end {}
               local.get 0)
             (func (export \"f\") (param i64) (result i64) i64.const {depth} call $f))",
            tail(1_000)
        )
    };
    // All entries are paid for, one tail is not.
    let fuel = 50 * 20 + 1_000;
    assert_eq!(run(&text(50), true, fuel), (None, fuel));
    assert!(run(&text(50), false, fuel).0.is_some(), "the engine by itself sees nothing");
    let (value, taken) = run(&text(50), true, 1_000_000);
    assert!(value.is_some() && taken > 50 * 1_000, "{taken}");
    assert_eq!(run(&text(50), false, 1_000_000).0, value);
}

#[test]
fn straight_code_stops_when_the_fuel_is_gone() {
    let text = format!("(module (func (export \"f\") (param i64) (result i64) {} local.get 0))", tail(100_000));
    assert_eq!(run(&text, true, 5_000), (None, 5_000));
    assert!(run(&text, false, 5_000).0.is_some(), "the engine by itself sees nothing");
    // Metering costs a unit for each look.
    let ((value, taken), (plain, less)) = (run(&text, true, 1_000_000), run(&text, false, 1_000_000));
    assert_eq!(value, plain);
    assert!((less..less + 100).contains(&taken), "{taken} {less}");
}

/// A way that leaps over the places where straight code would be checked.
#[test]
fn code_that_leaps_over_checks_stops_too() {
    let leap = format!("block {} local.get 0 i64.const 0 i64.ne br_if 0 {} end ", tail(1_200), tail(1_200));
    let text = format!("(module (func (export \"f\") (param i64) (result i64) {} local.get 0))", leap.repeat(60));
    assert_eq!(run(&text, true, 5_000), (None, 5_000));
    let (value, taken) = run(&text, true, 1_000_000);
    assert!(value.is_some() && taken > 60 * 1_200);
    assert_eq!(run(&text, false, 1_000_000).0, value);
}

/// Code that does nothing is code all the same: so is a look at the fuel.
#[test]
fn nothing_that_is_done_very_often_is_free() {
    for nothing in ["loop end ", "block end ", "loop block end end "] {
        let turns = "loop local.get 0 i64.const 1 i64.sub local.tee 0 i64.eqz br_if 1 br 0 end";
        let body = turns.replace("br 0", &format!("{} br 0", nothing.repeat(2_000)));
        let text = format!("(module (func (export \"f\") (param i64) (result i64) block {body} end i64.const 1))");
        let (value, taken) = run(&text, true, 1_000_000);
        assert!(value.is_some() && taken > 2 * 2_000, "{nothing}: {taken}");
    }
}

/// Moves between locals where ways meet are what the compiler makes of branches that name none.
#[test]
fn moves_of_many_locals_are_paid_for() {
    let locals = 800;
    let turn: String = (1..locals).map(|at| format!("local.get {} local.set {at} ", at + 1)).collect();
    let text = format!(
        "(module (func (export \"f\") (param i64) (result i64) (local $i i64) (local {})
           loop
             local.get 0 i64.eqz if {turn} end
             local.get $i i64.const 1 i64.add local.tee $i i64.const 1000 i64.lt_u br_if 0
           end local.get $i))",
        "i64 ".repeat(locals)
    );
    let (value, taken) = run(&text, true, 100_000_000);
    let (plain, less) = run(&text, false, 100_000_000);
    assert_eq!(value, plain);
    let charge = (locals + 2 - FREE_LOCALS) / MOVES;
    assert!(taken >= less + 2 * 1_000 * charge as u64, "{taken} {less}");
    assert!(taken < less + 3 * 1_000 * charge as u64);
}

#[test]
fn a_module_that_would_grow_beyond_measure_is_refused() {
    let grown = |locals: usize, branches: usize| {
        let text = format!("(module (func (local {}) {}))", "i64 ".repeat(locals), "block br 0 end ".repeat(branches));
        module(&wat::parse_str(text).unwrap())
    };
    assert!(matches!(grown(40_000, 10_000), Err(Unmetered::Grown)));
    assert!(grown(40_000, 10).is_ok() && grown(60, 10_000).is_ok());
}

#[test]
fn what_has_several_modules_is_refused_by_a_code_of_its_own() {
    for text in ["(component (core module) (core module))", "(component (component (core module)))"] {
        let error = metered(&wat::parse_str(text).unwrap()).err().unwrap();
        assert_eq!(error.code(), "component-unmetered", "{text}");
    }
    assert!(metered(&wat::parse_str("(component (core module) (component))").unwrap()).is_ok());
}

/// The longest stretch without a check, by walking the metered code along every way.
#[test]
fn no_way_is_longer_than_a_stretch() {
    let bodies = [
        format!("block block {} local.get 0 i32.wrap_i64 br_table 0 1 0 end {} end {}", tail(1_900), tail(1_000), tail(1_900)),
        format!("local.get 0 i64.eqz if {} else {} end {}", tail(2_000), tail(40), tail(2_000)),
        format!("local.get 0 i64.eqz if {} end {}", tail(2_000), tail(2_000)),
        format!("loop {} end {}", tail(2_040), tail(2_000)),
        format!("block {} local.get 0 i64.eqz br_if 0 return end {}", tail(2_000), tail(100)),
    ];
    for body in bodies {
        let text = format!("(module (func (export \"f\") (param i64) {body}))");
        let bytes = module(&wat::parse_str(&text).unwrap()).unwrap();
        for payload in Parser::new(0).parse_all(&bytes) {
            let Payload::CodeSectionEntry(body) = payload.unwrap() else { continue };
            let mut way = Way::new(1);
            for operator in body.get_operators_reader().unwrap() {
                let operator = operator.unwrap();
                // Reading it again finds nothing more to put in.
                assert_eq!(way.before(&operator), Put::default(), "{text}");
                way.pass(&operator, &Types::default());
            }
        }
    }
}
