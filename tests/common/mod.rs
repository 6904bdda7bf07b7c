//! What the tests on adapters share.

use libtest_mimic::Trial;
use wgformer::Gpu;

/// All adapters, opened, by name. That there are none, or that one does not open, is a failed test.
pub(crate) fn adapters(trials: &mut Vec<Trial>) -> Vec<(String, Gpu)> {
    let (mut opened, adapters) = (Vec::new(), Gpu::adapters());
    if adapters.is_empty() {
        let hint = "no adapter: install a Vulkan driver (mesa-vulkan-drivers)";
        trials.push(Trial::test("an adapter is there", move || Err(hint.into())));
    }
    for adapter in adapters {
        let info = adapter.get_info();
        let name = format!("{:?} {}", info.backend, info.name);
        match Gpu::open(&adapter) {
            Ok(gpu) => opened.push((name, gpu)),
            Err(error) => trials.push(Trial::test(format!("[{name}] opens"), move || Err(error.into()))),
        }
    }
    opened
}
