//! Host bindings, generated from the contract. Borrowed arguments: an individual's row is lowered straight from our buffers.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "analysis",
    ownership: Borrowing { duplicate_if_necessary: true },
});
