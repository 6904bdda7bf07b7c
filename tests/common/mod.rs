//! What the tests on adapters share.

pub(crate) mod choice;

use libtest_mimic::{Arguments, Failed, Trial};
use std::sync::{Arc, Mutex, PoisonError};
use wgformer::Gpu;

/// An adapter's device. Tests take it in turns: OpenGL gives up when several threads want it for long.
#[derive(Clone)]
pub(crate) struct Turn(Arc<Mutex<Gpu>>);

impl Turn {
    /// A test on this device.
    pub(crate) fn trial(&self, name: String, test: impl FnOnce(&Gpu) -> Result<(), Failed> + Send + 'static) -> Trial {
        let turn = self.0.clone();
        Trial::test(name, move || test(&turn.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Runs the tests, each on every adapter and in every mode of [`choice`], and exits.
#[allow(dead_code, reason = "each of the tests uses a part")]
pub(crate) fn run(trials: Vec<Trial>) -> ! {
    choice::run(&Arguments::from_args(), trials, |_, title| vec![title.into()])
}

/// All adapters, opened, by name. That there are none, or that one does not open, is a failed test.
pub(crate) fn adapters(trials: &mut Vec<Trial>) -> Vec<(String, Turn)> {
    let (mut opened, adapters) = (Vec::new(), Gpu::adapters());
    if adapters.is_empty() {
        let hint = "no adapter: install a Vulkan driver (mesa-vulkan-drivers)";
        trials.push(Trial::test("an adapter is there", move || Err(hint.into())));
    }
    for adapter in adapters {
        let info = adapter.get_info();
        let name = format!("{:?} {}", info.backend, info.name);
        match Gpu::open(&adapter) {
            Ok(gpu) => opened.push((name, Turn(Arc::new(Mutex::new(gpu))))),
            Err(error) => trials.push(Trial::test(format!("[{name}] opens"), move || Err(error.into()))),
        }
    }
    opened
}
