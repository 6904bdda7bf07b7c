//! Training on every adapter of this machine: the loss falls, runs repeat bit by bit, resume, and refuse NaN.

#[path = "../common/mod.rs"]
mod common;
mod equal;
#[path = "../common/losses.rs"]
mod losses;
mod numbers;
mod regression;
mod runs;

use equal::{
    halves_equal_the_whole, recomputation_gives_the_same_bits, several_shards_equal_one,
    two_micro_batches_equal_one_batch, windows_equal_the_whole,
};
use libtest_mimic::Failed;
use numbers::{
    a_loss_that_is_not_finite_is_an_error, five_steps_agree_with_f64, loss_scaling_changes_only_the_scale,
    nan_weights_are_an_error, overflow_is_skipped,
};
use runs::{
    a_killed_run_resumes_bit_by_bit, early_stop, half_precision_storage_trains, one_seed_gives_one_result,
    rates_change, the_loss_falls,
};
use wgformer::{Gpu, Result};

type Check = fn(&Gpu) -> Result<(), Failed>;

const CHECKS: &[(&str, Check)] = &[
    ("the loss falls", the_loss_falls),
    ("one seed gives one result", one_seed_gives_one_result),
    ("five steps of AdamW agree with f64", five_steps_agree_with_f64),
    ("two micro-batches equal one batch", two_micro_batches_equal_one_batch),
    ("half-precision storage trains", half_precision_storage_trains),
    ("loss scaling changes nothing but the scale", loss_scaling_changes_only_the_scale),
    ("overflow is skipped and lowers the scale", overflow_is_skipped),
    ("NaN weights are an error", nan_weights_are_an_error),
    ("a loss that is not finite is an error", a_loss_that_is_not_finite_is_an_error),
    ("a step cut in two equals a whole one", halves_equal_the_whole),
    ("early stop", early_stop),
    ("learning rates change between steps", rates_change),
    ("several shards equal one", several_shards_equal_one),
    ("ranges larger than a binding equal one", windows_equal_the_whole),
    ("a killed run resumes bit by bit", a_killed_run_resumes_bit_by_bit),
    ("recomputed activations give the same bits", recomputation_gives_the_same_bits),
];

fn main() {
    let mut trials = Vec::new();
    for (adapter, device) in common::adapters_also_as_gpus(&mut trials) {
        for &(name, check) in CHECKS {
            trials.push(device.trial(format!("[{adapter}] {name}"), check));
        }
    }
    common::run(trials);
}

fn ensure(holds: bool, what: impl Into<String>) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.into().into()) }
}
