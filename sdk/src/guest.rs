//! The component's exports, in front of the [`driver`].
//!
//! *In*: calls from the host. *Out*: what the contract promises. Each call first sets the panic hook, so that a dry run can show
//! a message. What `prepare` decodes is kept for `contribute`: the host runs `prepare` once a round, and every instance begins with the memory
//! that it left.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;

use crate::analysis::Analysis;
use crate::bindings::Guest;
use crate::contract::{Contribution, Individual, Plan, Released, Shape, Step};
use crate::driver::{self, Prepared};

/// An [`Analysis`] as a component. [`analysis!`](crate::analysis!) exports it.
#[derive(Debug)]
pub struct Component<A>(PhantomData<A>);

thread_local! {
    static PREPARED: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

impl<A: Analysis> Guest for Component<A> {
    fn plan(params: String) -> Result<Plan, String> {
        crate::panic::listen();
        driver::plan::<A>(&params)
    }

    fn next(params: String, shape: Shape, history: Vec<Vec<Released>>) -> Result<Step, String> {
        crate::panic::listen();
        driver::next::<A>(&params, &shape, history)
    }

    fn prepare(state: Vec<u8>) -> Result<(), String> {
        crate::panic::listen();
        let prepared = Prepared::<A>::decode(&state)?;
        PREPARED.set(Some(Box::new(prepared)));
        #[cfg(target_arch = "wasm32")]
        crate::memory::leave_room();
        Ok(())
    }

    fn contribute(individuals: Vec<Individual>) -> Vec<Contribution> {
        crate::panic::listen();
        PREPARED.with_borrow(|prepared| {
            let prepared = prepared.as_ref().and_then(|any| any.downcast_ref::<Prepared<A>>());
            prepared.expect("the host calls `prepare` before `contribute`").contribute(individuals)
        })
    }
}
