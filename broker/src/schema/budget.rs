//! A bound on what one check of arguments may cost, for schemas that refer to themselves.
//!
//! Without references a check costs at most schema times arguments. With them it can double at every level: forty short
//! definitions, each of which names the one before it twice, would keep the broker busy for hours. So each step through
//! a reference is counted, and a check that takes too many is broken off.

use std::cell::Cell;
use std::panic::resume_unwind;

use jsonschema::{Keyword, ValidationError};
use serde_json::Value;

/// Steps through references that one check may take, a long one being several: far more than honest arguments need, and done in milliseconds.
pub(super) const STEPS_TO_CHECK: u32 = 100_000;
/// And to list what is wrong, where each step may leave a complaint that quotes the arguments.
pub(super) const STEPS_TO_LIST: u32 = 2_000;
/// How far the stack may grow on the way: half of what a thread of the runtime has. Without this bound a chain of
/// references, each of which leads to the next, would end the process.
const MAX_STACK_BYTES: usize = 1 << 20;
/// The keyword that counts; no schema of a tool means anything by it.
pub(super) const KEYWORD: &str = "toolpool:step";

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(0) };
    static BEGAN_AT: Cell<usize> = const { Cell::new(0) };
}

/// A check that took too many steps; carried by an unwind.
pub(super) struct Spent;

/// The keyword as a validator.
pub(super) struct Step(u32);

impl Step {
    /// Of the keyword's value: how many steps.
    pub(super) fn of(value: &Value) -> Self {
        Self(
            value
                .as_u64()
                .and_then(|steps| steps.try_into().ok())
                .unwrap_or(1),
        )
    }
}

impl<'i> Keyword<'i> for Step {
    fn validate(&self, _: &'i Value) -> Result<(), ValidationError<'i>> {
        take(self.0);
        Ok(())
    }

    fn is_valid(&self, _: &'i Value) -> bool {
        take(self.0);
        true
    }
}

/// A check begins, which may take so many steps.
pub(super) fn renew(steps: u32) {
    LEFT.set(steps);
    BEGAN_AT.set(place_on_the_stack());
}

fn take(steps: u32) {
    let is_deep = place_on_the_stack().abs_diff(BEGAN_AT.get()) > MAX_STACK_BYTES;
    match LEFT.get().checked_sub(steps) {
        Some(left) if !is_deep => LEFT.set(left),
        // The validator has no other way to stop; no panic hook runs for this.
        _ => resume_unwind(Box::new(Spent)),
    }
}

/// Where the stack has got to, near enough.
#[inline(never)]
fn place_on_the_stack() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr()
}
