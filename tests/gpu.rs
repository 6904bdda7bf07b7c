//! The conformance suite on every adapter of this machine: one test for each case and adapter.
//!
//! Run some of it with `cargo test --test gpu -- NAME`. Without an adapter the run fails: a skipped suite is no pass.

use libtest_mimic::{Arguments, Failed, Trial};
use wgformer::check::{Case, Comparison, cases};
use wgformer::{Gpu, Result};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![Trial::test("an adapter is there", || {
        if Gpu::adapters().is_empty() {
            Err("no adapter: install a Vulkan driver (mesa-vulkan-drivers)".into())
        } else {
            Ok(())
        }
    })];
    for case in cases::all() {
        let name = format!("[f64] finite differences: {}", case.name);
        trials.push(Trial::test(name, move || verdict(case.check_gradients(12))));
    }
    for adapter in Gpu::adapters() {
        let info = adapter.get_info();
        let gpu = match Gpu::open(&adapter) {
            Ok(gpu) => gpu,
            Err(error) => {
                trials
                    .push(Trial::test(format!("[{:?} {}] opens", info.backend, info.name), move || Err(error.into())));
                continue;
            }
        };
        for case in cases::all() {
            let (gpu, name) = (gpu.clone(), format!("[{:?} {}] {}", info.backend, info.name, case.name));
            trials.push(Trial::test(name, move || run(&case, &gpu)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(case: &Case, gpu: &Gpu) -> Result<(), Failed> {
    verdict(case.run(gpu))
}

fn verdict(result: Result<Vec<Comparison>>) -> Result<(), Failed> {
    let failed: Vec<String> = result?
        .iter()
        .filter(|c| !c.passed)
        .map(|c| format!("{}: NMSE {:.1e}, largest error {:.1e} of the largest value", c.what, c.nmse, c.worst))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}
