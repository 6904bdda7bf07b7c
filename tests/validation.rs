//! Vulkan's validation layer has nothing to say of the engine's calls and shaders, and would say something: a deliberate error is the control.
//!
//! The layer is that of Chromium (Debian's chromium-common), since older ones complain of every module. `REQUIRE_VALIDATION=1` makes a missing layer
//! a failure; `CI=true` sets it in `.ci/run`.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use log::{LevelFilter, Log, Metadata, Record};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use wgformer::check::quick_cases;
use wgformer::gpu::{AdapterClass, GpuOptions};
use wgformer::{Gpu, Program, Weights};

/// The layer's library.
const LAYER: &str = "/usr/lib/chromium/libVkLayer_khronos_validation.so";
/// Set in the process whose messages are read; `error` asks for a deliberate one.
const CHILD: &str = "VALIDATION_CHILD";

/// What wgpu logs of the layer.
struct Messages(Mutex<Vec<String>>);

impl Log for Messages {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        if text.contains("VUID") || text.contains("Validation") || text.contains("UNASSIGNED") {
            self.0.lock().unwrap().push(text);
        }
    }

    fn flush(&self) {}
}

static MESSAGES: Messages = Messages(Mutex::new(Vec::new()));

/// Runs a child under the layer; what it printed, and whether it succeeded.
fn under_the_layer(mode: &str) -> Option<(bool, String)> {
    if !Path::new(LAYER).exists() {
        assert!(std::env::var_os("REQUIRE_VALIDATION").is_none(), "{LAYER} is missing: install chromium-common");
        println!("NOT CHECKED: there is no {LAYER}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let manifest = serde_json::json!({ "file_format_version": "1.2.0", "layer": {
        "name": "VK_LAYER_KHRONOS_validation", "type": "GLOBAL", "library_path": LAYER, "api_version": "1.3.239",
        "implementation_version": "1", "description": "Khronos validation",
        "instance_extensions": [{ "name": "VK_EXT_debug_utils", "spec_version": "1" }] } });
    std::fs::write(folder.path().join("VkLayer_khronos_validation.json"), manifest.to_string()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child", "--nocapture"]).env(CHILD, mode).env("VK_LAYER_PATH", folder.path());
    let output = child.env("GALLIVM_PERF", "nopt").output().unwrap();
    Some((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[test]
fn the_layer_has_nothing_to_say() {
    let Some((passed, said)) = under_the_layer("cases") else { return };
    assert!(passed && said.contains("devices were checked"), "{said}");
}

#[test]
fn the_layer_would_say_something() {
    let Some((_, said)) = under_the_layer("error") else { return };
    assert!(said.contains("VUID-VkBufferCreateInfo-size-00912"), "{said}");
}

#[test]
fn child() {
    let Ok(mode) = std::env::var(CHILD) else { return };
    log::set_logger(&MESSAGES).unwrap();
    log::set_max_level(LevelFilter::Warn);
    let options = GpuOptions::default().with_validation(true);
    let adapters = pollster::block_on(Gpu::adapters_async(&options));
    let mut devices = 0;
    for adapter in adapters.iter().filter(|adapter| adapter.get_info().backend == wgpu::Backend::Vulkan) {
        if mode == "error" {
            deliberate_error(adapter);
            continue;
        }
        // A GPU's kernels on one driver, and on another those that it gets; all on all with WGFORMER_TESTS=full.
        let own = AdapterClass::of(&adapter.get_info());
        let full = std::env::var("WGFORMER_TESTS").is_ok_and(|wanted| wanted == "full");
        let classes = if full { vec![AdapterClass::Gpu, own] } else { vec![[AdapterClass::Gpu, own][devices % 2]] };
        for class in classes {
            let gpu = Gpu::open_with(adapter, &options.clone().with_class(class)).unwrap();
            for case in quick_cases(gpu.caps()) {
                let Ok(recording) = case.recording(gpu.caps()) else { continue };
                Program::prepare(&gpu, recording, &Weights::new(&gpu)).unwrap().run().unwrap();
            }
            gpu.wait(None).unwrap();
            devices += 1;
        }
    }
    let mut said = MESSAGES.0.lock().unwrap().clone();
    said.sort();
    said.dedup();
    for message in said.iter().take(20) {
        println!("{message}");
    }
    println!("{devices} devices were checked");
    assert!(said.is_empty() && devices > 0);
}

/// A buffer of no bytes, which wgpu's own checks do not see.
#[allow(unsafe_code, reason = "only Vulkan's own calls get past wgpu's checks")]
fn deliberate_error(adapter: &wgpu::Adapter) {
    let (device, _queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let info = ash::vk::BufferCreateInfo::default().size(0).usage(ash::vk::BufferUsageFlags::STORAGE_BUFFER);
    // SAFETY: the device is alive; a driver refuses or makes an empty buffer, which is destroyed.
    unsafe {
        let raw = device.as_hal::<wgpu::hal::api::Vulkan>().unwrap();
        if let Ok(buffer) = raw.raw_device().create_buffer(&info, None) {
            raw.raw_device().destroy_buffer(buffer, None);
        }
    }
}
