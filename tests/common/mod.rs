//! The devices of the tests on adapters.

pub(crate) mod choice;

use libtest_mimic::{Arguments, Failed, Trial};
use std::sync::{Arc, Mutex, PoisonError};
use wgformer::Gpu;
use wgformer::gpu::{AdapterClass, GpuOptions};

/// A device. Tests of one adapter run one at a time: OpenGL gives up when several threads want it for long.
#[derive(Clone)]
pub(crate) struct TestDevice {
    gpu: Gpu,
    adapter: Arc<Mutex<()>>,
}

impl TestDevice {
    /// A test on this device.
    pub(crate) fn trial(&self, name: String, test: impl FnOnce(&Gpu) -> Result<(), Failed> + Send + 'static) -> Trial {
        let Self { gpu, adapter } = self.clone();
        Trial::test(name, move || {
            let _lock = adapter.lock().unwrap_or_else(PoisonError::into_inner);
            test(&gpu)
        })
    }
}

/// Runs the tests, each on every adapter and in every mode of [`choice`], and exits.
#[allow(dead_code, reason = "each of the tests uses a part")]
pub(crate) fn run(trials: Vec<Trial>) -> ! {
    choice::run(&Arguments::from_args(), trials, |_, title| vec![title.into()])
}

/// All adapters, opened, by name. A missing adapter, or one that does not open, is a failed test.
#[allow(dead_code, reason = "not all tests are content with it")]
pub(crate) fn adapters(trials: &mut Vec<Trial>) -> Vec<(String, TestDevice)> {
    opened(trials, &[None])
}

/// As [`adapters`], and those that compute on the CPU once more as GPUs: with the kernels that a GPU gets.
#[allow(dead_code, reason = "not all tests need it")]
pub(crate) fn adapters_also_as_gpus(trials: &mut Vec<Trial>) -> Vec<(String, TestDevice)> {
    opened(trials, &[None, Some(AdapterClass::Gpu)])
}

fn opened(trials: &mut Vec<Trial>, classes: &[Option<AdapterClass>]) -> Vec<(String, TestDevice)> {
    let (mut opened, adapters) = (Vec::new(), Gpu::adapters());
    if adapters.is_empty() {
        let hint = "no adapter: install a Vulkan driver (mesa-vulkan-drivers)";
        trials.push(Trial::test("an adapter is there", move || Err(hint.into())));
    }
    for adapter in adapters {
        let (info, lock) = (adapter.get_info(), Arc::new(Mutex::new(())));
        for &class in classes.iter().filter(|class| **class != Some(AdapterClass::of(&info))) {
            let how = class.map_or("", |_| ", as a GPU");
            let name = format!("{:?} {}{how}", info.backend, info.name);
            let mut options = GpuOptions::default();
            options.class = class;
            match Gpu::open_with(&adapter, &options) {
                Ok(gpu) => {
                    choice::keep(&gpu);
                    opened.push((name, TestDevice { gpu, adapter: lock.clone() }));
                }
                Err(error) => trials.push(Trial::test(format!("[{name}] opens"), move || Err(error.into()))),
            }
        }
    }
    opened
}
