//! The conformance suite on every adapter of this machine: one test for each case and adapter.
//!
//! Run some of it with `cargo test --test gpu -- NAME`. Without an adapter the run fails: a skipped suite is no pass. Where
//! certain adapters must be among them, `REQUIRE_ADAPTERS=vulkan:llvmpipe,gl` (backend, or backend and part of the name) says so.
//! Without a name a choice runs that has every kernel on every adapter and every variant of it in every mode; with `WGFORMER_TESTS=full` all run.

#[path = "common/choice.rs"]
mod choice;

use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use wgformer::check::{Case, Comparison, cases, kernels_of};
use wgformer::gpu::{AdapterClass, Caps, GpuOptions};
use wgformer::graph::Graph;
use wgformer::program::Recording;
use wgformer::software::{Options, Textures};
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
    trials.extend(required_adapters());
    let cases: Vec<Arc<Case>> = cases::all().into_iter().map(Arc::new).collect();
    for case in cases.iter().cloned() {
        let name = format!("[f64] finite differences: {}", case.name);
        trials.push(Trial::test(name, move || verdict(case.check_gradients(12))));
    }
    let mut opened = HashMap::new();
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
        let mut devices = vec![(gpu.clone(), "")];
        for (options, how) in other_ways(gpu.caps()) {
            match Gpu::open_with(&adapter, &options) {
                Ok(gpu) => devices.push((gpu, how)),
                Err(error) => trials.push(Trial::test(format!("a device opens{how}"), move || Err(error.into()))),
            }
        }
        let units = GpuOptions::default().with_matrix_units(true).with_class(AdapterClass::Gpu);
        devices.extend(
            Gpu::open_with(&adapter, &units)
                .ok()
                .filter(|gpu| gpu.caps().matrix_units.is_some())
                .map(|gpu| (gpu, UNITS)),
        );
        // OpenGL gives up when several threads want it for long.
        let lock = Arc::new(Mutex::new(()));
        for (gpu, how) in devices {
            let device = format!("{:?} {}{how}", info.backend, info.name);
            opened.insert(device.clone(), gpu.caps().clone());
            choice::keep(&gpu);
            for case in cases.iter().filter(|case| how != UNITS || case.name.contains("by matrix")).cloned() {
                let (gpu, lock) = (gpu.clone(), lock.clone());
                let name = format!("[{device}] {}", case.name);
                trials.push(Trial::test(name, move || {
                    let _lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
                    verdict(case.run(&gpu))
                }));
            }
        }
    }
    // A graph is built once for all devices.
    let by_title: HashMap<&str, (&Case, OnceLock<Option<Graph>>)> =
        cases.iter().map(|case| (case.name.as_str(), (case.as_ref(), OnceLock::new()))).collect();
    choice::run(&arguments, trials, |device, title| match (opened.get(device), by_title.get(title)) {
        (Some(caps), Some((case, graph))) => {
            let graph = graph.get_or_init(|| case.graph().ok()).as_ref();
            let recording = graph.and_then(|graph| Recording::new(graph, caps).ok());
            let kernels = recording.as_ref().map(kernels_of).unwrap_or_default();
            kernels.iter().map(|kernel| kernel.replacen(' ', "\t", 1)).collect()
        }
        _ => Vec::new(),
    });
}

/// A device whose matrix units are in use, which round: only cases that ask for them are compared there.
const UNITS: &str = ", matrix units";

/// The modes of a CPU driver besides the default: reading tensors the other way (by default, drivers that copy into textures read small
/// tensors from buffers, and drivers that do not copy read none), and the kernels of a GPU.
fn other_ways(caps: &Caps) -> Vec<(GpuOptions, &'static str)> {
    if caps.class == AdapterClass::Gpu {
        return Vec::new();
    }
    let as_gpu = GpuOptions::default().with_class(AdapterClass::Gpu);
    let (work, how) = match (caps.quirks.textures, caps.quirks.shared_textures) {
        (Textures::None, _) => return vec![(as_gpu, ", as a GPU")],
        (_, false) => (0, ", textures"),
        (_, true) => (u64::MAX, ", buffers"),
    };
    let software = Options::default().with_texture_work(work);
    vec![(GpuOptions::default().with_software(software), how), (as_gpu, ", as a GPU")]
}

/// A test for each adapter that the environment asks for.
fn required_adapters() -> Vec<Trial> {
    let found: Vec<String> = Gpu::adapters()
        .iter()
        .map(|adapter| {
            let info = adapter.get_info();
            format!("{:?}:{}", info.backend, info.name).to_lowercase()
        })
        .collect();
    let wanted = std::env::var("REQUIRE_ADAPTERS").unwrap_or_default().to_lowercase();
    let test = |wanted: &str| {
        let (backend, name) = wanted.split_once(':').unwrap_or((wanted, ""));
        let there = found.iter().any(|f| f.split_once(':').is_some_and(|(b, n)| b == backend && n.contains(name)));
        let message = format!("{wanted} is not among the adapters found: {}", found.join(", "));
        Trial::test(format!("required adapter {wanted}"), move || if there { Ok(()) } else { Err(message.into()) })
    };
    wanted.split(',').map(str::trim).filter(|w| !w.is_empty()).map(test).collect()
}

fn verdict(result: Result<Vec<Comparison>>) -> Result<(), Failed> {
    let failed: Vec<String> = result?
        .iter()
        .filter(|c| !c.passed)
        .map(|c| format!("{}: NMSE {:.1e}, largest error {:.1e} of the largest value", c.what, c.nmse, c.worst))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}
